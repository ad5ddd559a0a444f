"""Convolution and pooling, by loops over taps and windows."""

import numpy as np


def add_to(suite):
    convolution(suite)
    pooling(suite)


def placed(x, padding):
    top, bottom, left, right = padding
    return np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))


def extents(image, kernel, stride, dilation, padding):
    top, bottom, left, right = padding
    return tuple((size + pad - d * (k - 1) - 1) // s + 1 for size, k, s, d, pad in
                 zip(image, kernel, stride, dilation, (top + bottom, left + right)))


def windows(kernel, stride, dilation, out):
    """Each tap with the slices of the padded image that it meets."""
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            rows = slice(i * dilation[0], i * dilation[0] + (out[0] - 1) * stride[0] + 1, stride[0])
            columns = slice(j * dilation[1], j * dilation[1] + (out[1] - 1) * stride[1] + 1, stride[1])
            yield i, j, rows, columns


def conv(x, w, dy, attrs):
    """Output, input gradient and weight gradient of one convolution."""
    stride, padding, dilation, groups = attrs["stride"], attrs["padding"], attrs["dilation"], attrs["groups"]
    n, c, h, width = x.shape
    o, per_group, kh, kw = w.shape
    out = extents((h, width), (kh, kw), stride, dilation, padding)
    image, weight = placed(x, padding), w.astype(np.float64)
    y = np.zeros((n, o, *out))
    dx, dw = np.zeros_like(image), np.zeros(w.shape)
    filters = o // groups
    for g in range(groups):
        ins, outs = slice(g * per_group, (g + 1) * per_group), slice(g * filters, (g + 1) * filters)
        for i, j, rows, columns in windows((kh, kw), stride, dilation, out):
            patch = image[:, ins, rows, columns]
            y[:, outs] += np.einsum("ncij,oc->noij", patch, weight[outs, :, i, j])
            dx[:, ins, rows, columns] += np.einsum("noij,oc->ncij", dy[:, outs].astype(np.float64),
                                                   weight[outs, :, i, j])
            dw[outs, :, i, j] = np.einsum("ncij,noij->oc", patch, dy[:, outs].astype(np.float64))
    top, _, left, _ = padding
    return (a.astype(np.float32) for a in (y, dx[:, :, top:top + h, left:left + width], dw))


CONVOLUTIONS = [
    # batch, channels, rows, columns, filters, kernel, stride, padding, dilation, groups
    (1, 1, 1, 1, 1, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    (2, 3, 7, 6, 4, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    (2, 3, 7, 6, 4, (3, 2), (2, 1), (1, 0, 0, 2), (1, 1), 1),
    (3, 4, 8, 8, 6, (3, 3), (2, 3), (0, 1, 2, 0), (1, 2), 2),
    (2, 4, 5, 5, 4, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 4),
    (2, 5, 4, 6, 7, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    (2, 5, 5, 6, 3, (1, 1), (2, 2), (0, 0, 0, 0), (1, 1), 1),
    (1, 2, 3, 3, 2, (5, 5), (1, 1), (2, 2, 2, 2), (1, 1), 1),
    (1, 2, 4, 4, 3, (2, 2), (1, 1), (3, 0, 0, 3), (3, 2), 1),
    (4, 1, 28, 28, 16, (5, 5), (1, 1), (2, 2, 2, 2), (1, 1), 1),
    (2, 16, 14, 14, 32, (5, 5), (1, 1), (2, 2, 2, 2), (1, 1), 1),
    (1, 24, 40, 60, 5, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),  # more than one tile of output rows
    (1, 1, 6, 6, 1, (2, 2), (4, 4), (0, 0, 0, 0), (1, 1), 1),  # rows that no window reads
    (1, 1, 2, 2, 2, (1, 1), (5, 5), (4, 4, 4, 4), (1, 1), 1),  # windows wholly in the padding
    (1, 1, 4, 4, 1, (1, 1), (1, 9), (0, 0, 3, 0), (1, 1), 1),  # the image begins beyond what is read
    (1, 2, 4, 4, 2, (1, 1), (9, 1), (3, 0, 0, 0), (1, 1), 2),
    (2, 2, 4, 4, 3, (2, 2), (9, 9), (6, 1, 6, 1), (1, 1), 1),
]


def convolution(suite):
    for n, c, h, w, o, kernel, stride, padding, dilation, groups in CONVOLUTIONS:
        attrs = {"stride": list(stride), "padding": list(padding), "dilation": list(dilation), "groups": groups}
        x, weight = suite.normal(n, c, h, w), suite.normal(o, c // groups, *kernel)
        out = extents((h, w), kernel, stride, dilation, padding)
        dy = suite.normal(n, o, *out)
        y, dx, dw = conv(x, weight, dy, attrs)
        label = f"{(n, c, h, w)} {(o, *kernel)} stride={stride} padding={padding} dilation={dilation} groups={groups}"
        inner = c // groups * kernel[0] * kernel[1]
        suite.single(f"conv2d {label}", "conv2d", [x, weight], y, abs=3e-7 * inner, rel=1e-6, **attrs)
        suite.single(f"conv2d_input_grad {label}", "conv2d_input_grad", [weight, dy], dx,
                     abs=3e-7 * (o // groups) * kernel[0] * kernel[1], rel=1e-6, attrs=attrs, input=[h, w])
        positions = n * out[0] * out[1]
        suite.single(f"conv2d_weight_grad {label}", "conv2d_weight_grad", [x, dy], dw,
                     abs=1e-6 + 3e-7 * positions, rel=1e-6, attrs=attrs, kernel=list(kernel))


POOLS = [
    # batch, channels, rows, columns, kernel, stride, padding
    (1, 1, 2, 2, (2, 2), (2, 2), (0, 0, 0, 0)),
    (2, 3, 6, 8, (2, 2), (2, 2), (0, 0, 0, 0)),
    (2, 3, 7, 5, (2, 2), (2, 2), (0, 0, 0, 0)),
    (2, 3, 7, 5, (3, 3), (2, 2), (1, 1, 1, 1)),
    (1, 2, 6, 6, (3, 2), (1, 3), (2, 0, 0, 1)),
    (2, 1, 5, 5, (1, 1), (2, 2), (0, 0, 0, 0)),
    (1, 2, 4, 4, (4, 4), (1, 1), (0, 0, 0, 0)),
    (1, 2, 5, 4, (2, 2), (1, 1), (1, 0, 1, 0)),
]


def pool_windows(x, kernel, stride, padding):
    """Each window as (output place, list of places in the image), in row-major order."""
    _, _, h, w = x.shape
    out = extents((h, w), kernel, stride, (1, 1), padding)
    for i in range(out[0]):
        for j in range(out[1]):
            rows = range(i * stride[0] - padding[0], i * stride[0] - padding[0] + kernel[0])
            columns = range(j * stride[1] - padding[2], j * stride[1] - padding[2] + kernel[1])
            yield (i, j), [(r, s) for r in rows for s in columns if 0 <= r < h and 0 <= s < w]


def pooling(suite):
    for n, c, h, w, kernel, stride, padding in POOLS:
        attrs = {"kernel": list(kernel), "stride": list(stride), "padding": list(padding)}
        label = f"{(n, c, h, w)} {kernel} stride={stride} padding={padding}"
        # Rounded, so that ties are frequent.
        x = np.round(suite.normal(n, c, h, w) * 2).astype(np.float32)
        both(suite, label, x, attrs)
    odd = np.array([[np.nan, 1, -np.inf, -np.inf], [2, np.nan, -np.inf, -np.inf]], np.float32).reshape(1, 1, 2, 4)
    both(suite, "of NaN and infinities", odd, {"kernel": [2, 2], "stride": [2, 2], "padding": [0, 0, 0, 0]})
    both(suite, "of NaN and infinities, overlapping", odd,
         {"kernel": [2, 2], "stride": [1, 1], "padding": [1, 1, 1, 1]})


def both(suite, label, x, attrs):
    kernel, stride, padding = attrs["kernel"], attrs["stride"], attrs["padding"]
    n, c, h, w = x.shape
    out = extents((h, w), kernel, stride, (1, 1), padding)
    dy = suite.normal(n, c, *out)
    y_max, y_mean = np.zeros((n, c, *out)), np.zeros((n, c, *out))
    dx_max, dx_mean = np.zeros(x.shape), np.zeros(x.shape)
    area = kernel[0] * kernel[1]
    for (i, j), places in pool_windows(x, kernel, stride, padding):
        rows, columns = [r for r, _ in places], [s for _, s in places]
        values = x[:, :, rows, columns]
        winner = np.argmax(values, axis=2)  # the first maximum, or the first NaN
        y_max[:, :, i, j] = np.take_along_axis(values, winner[..., None], axis=2)[..., 0]
        with np.errstate(all="ignore"):
            y_mean[:, :, i, j] = values.astype(np.float64).sum(axis=2) / area
        for image in range(n):
            for channel in range(c):
                r, s = places[winner[image, channel]]
                dx_max[image, channel, r, s] += dy[image, channel, i, j]
        for r, s in places:
            dx_mean[:, :, r, s] += dy[:, :, i, j].astype(np.float64) / area
    f32 = np.float32
    suite.single(f"max_pool2d {label}", "max_pool2d", [x], y_max.astype(f32), **attrs)
    suite.single(f"max_pool2d_grad {label}", "max_pool2d_grad", [x, dy], dx_max.astype(f32), abs=1e-6, **attrs)
    suite.single(f"avg_pool2d {label}", "avg_pool2d", [x], y_mean.astype(f32), abs=1e-6, rel=1e-6, **attrs)
    suite.single(f"avg_pool2d_grad {label}", "avg_pool2d_grad", [dy], dx_mean.astype(f32), abs=1e-6, attrs=attrs,
                 input=[h, w])
