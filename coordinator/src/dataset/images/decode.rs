//! PNG and JPEG to bytes, with bounds on what an image may unfold to.

use super::Resize;
use png::{ColorType, Transformations};
use std::io::Cursor;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// Pixels of one image as it comes: 32 million of them take 128 MiB as RGBA.
const PIXELS_MAX: u64 = 1 << 25;
const PNG_MAGIC: &[u8] = b"\x89PNG\r\n\x1a\n";
const JPEG_MAGIC: &[u8] = b"\xff\xd8\xff";

/// Why an image is refused.
pub struct Refusal {
    pub rule: String,
    pub found: String,
}

/// What an image is, before its pixels are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Rows and columns.
    pub size: [u32; 2],
    pub has_colour: bool,
}

/// An image: rows of pixels, each of 1 or 3 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    size: [usize; 2],
    channels: usize,
    bytes: Vec<u8>,
}

fn refusal(rule: &str, found: impl Into<String>) -> Refusal {
    Refusal { rule: rule.into(), found: found.into() }
}

fn bad_png(error: png::DecodingError) -> Refusal {
    refusal("a PNG that can be decoded", error.to_string())
}

fn bad_jpeg(error: zune_jpeg::errors::DecodeErrors) -> Refusal {
    refusal("a JPEG that can be decoded", error.to_string())
}

fn bounded(rows: u64, columns: u64) -> Result<[u32; 2], Refusal> {
    if rows.saturating_mul(columns) > PIXELS_MAX {
        let rule = format!("an image of at most {PIXELS_MAX} pixels");
        return Err(refusal(&rule, format!("{rows} x {columns}")));
    }
    // A side is shorter than the whole.
    Ok([rows as u32, columns as u32])
}

type PngReader<'a> = png::Reader<Cursor<&'a [u8]>>;

fn open_png(bytes: &[u8]) -> Result<(PngReader<'_>, [u32; 2]), Refusal> {
    // Beside the rows themselves: a palette, a profile, texts.
    let limits = png::Limits { bytes: 64 << 20 };
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_transformations(Transformations::normalize_to_color8());
    decoder.set_ignore_text_chunk(true);
    let header = decoder.read_header_info().map_err(bad_png)?;
    let size = bounded(header.height.into(), header.width.into())?;
    Ok((decoder.read_info().map_err(bad_png)?, size))
}

/// A JPEG whose headers are read.
type OpenJpeg<'a> = (JpegDecoder<ZCursor<&'a [u8]>>, Header);

fn open_jpeg(bytes: &[u8]) -> Result<OpenJpeg<'_>, Refusal> {
    let side_max = 1 << 16;
    let options = DecoderOptions::new_safe().set_max_width(side_max).set_max_height(side_max);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(bad_jpeg)?;
    let missing = || refusal("a JPEG with a header", "none");
    let (columns, rows) = decoder.dimensions().ok_or_else(missing)?;
    let size = bounded(rows as u64, columns as u64)?;
    let colours = decoder.input_colorspace().ok_or_else(missing)?;
    let has_colour = match colours {
        ColorSpace::Luma => false,
        ColorSpace::YCbCr | ColorSpace::RGB => true,
        other => return Err(refusal("grey, YCbCr or RGB", format!("{other:?}"))),
    };
    let output = if has_colour { ColorSpace::RGB } else { ColorSpace::Luma };
    decoder.set_options(options.jpeg_set_out_colorspace(output));
    Ok((decoder, Header { size, has_colour }))
}

fn kind(bytes: &[u8]) -> Result<bool, Refusal> {
    if bytes.starts_with(PNG_MAGIC) {
        Ok(true)
    } else if bytes.starts_with(JPEG_MAGIC) {
        Ok(false)
    } else {
        let start = String::from_utf8_lossy(&bytes[..bytes.len().min(8)]).into_owned();
        Err(refusal("a PNG or JPEG image", format!("a file that begins with {start:?}")))
    }
}

/// Reads an image's header.
///
/// # Errors
/// [`Refusal`].
pub fn header(bytes: &[u8]) -> Result<Header, Refusal> {
    if !kind(bytes)? {
        return open_jpeg(bytes).map(|(_, header)| header);
    }
    let (reader, size) = open_png(bytes)?;
    let (colours, _) = reader.output_color_type();
    Ok(Header { size, has_colour: matches!(colours, ColorType::Rgb | ColorType::Rgba) })
}

/// Reads an image's pixels.
///
/// # Errors
/// [`Refusal`].
pub fn pixels(bytes: &[u8]) -> Result<Pixels, Refusal> {
    if !kind(bytes)? {
        let (mut decoder, Header { size, has_colour }) = open_jpeg(bytes)?;
        let bytes = decoder.decode().map_err(bad_jpeg)?;
        return checked(size, if has_colour { 3 } else { 1 }, bytes);
    }
    let (mut reader, size) = open_png(bytes)?;
    let needed = reader.output_buffer_size();
    let mut bytes = vec![0; needed.ok_or_else(|| refusal("a smaller image", "overflow"))?];
    reader.next_frame(&mut bytes).map_err(bad_png)?;
    let (channels, bytes) = match reader.output_color_type().0 {
        ColorType::Grayscale => (1, bytes),
        ColorType::GrayscaleAlpha => (1, on_black(&bytes, 1)),
        ColorType::Rgba => (3, on_black(&bytes, 3)),
        _ => (3, bytes),
    };
    checked(size, channels, bytes)
}

fn checked(size: [u32; 2], channels: usize, bytes: Vec<u8>) -> Result<Pixels, Refusal> {
    let size = size.map(|side| side as usize);
    let expected = size[0] * size[1] * channels;
    if bytes.len() != expected {
        let rule = format!("an image of {expected} bytes, as its header says");
        return Err(refusal(&rule, bytes.len().to_string()));
    }
    Ok(Pixels { size, channels, bytes })
}

/// Pixels with a last byte of opacity, laid on black.
fn on_black(bytes: &[u8], channels: usize) -> Vec<u8> {
    let pixels = bytes.chunks_exact(channels + 1);
    let laid = pixels.flat_map(|pixel| {
        let opacity = u32::from(pixel[channels]);
        pixel[..channels].iter().map(move |&value| ((u32::from(value) * opacity + 127) / 255) as u8)
    });
    laid.collect()
}

impl Pixels {
    /// Grey from colours by their weights in ITU-R BT.601, colours from grey
    /// by repetition.
    pub fn with_channels(self, channels: u32) -> Self {
        let bytes = match (self.channels, channels) {
            (1, 3) => self.bytes.iter().flat_map(|&grey| [grey; 3]).collect(),
            (3, 1) => {
                let grey = |pixel: &[u8]| {
                    let [red, green, blue] = [0, 1, 2].map(|at: usize| u32::from(pixel[at]));
                    ((299 * red + 587 * green + 114 * blue + 500) / 1000) as u8
                };
                self.bytes.chunks_exact(3).map(grey).collect()
            }
            _ => return self,
        };
        Pixels { bytes, channels: channels as usize, ..self }
    }

    fn at(&self, row: usize, column: usize, channel: usize) -> u32 {
        self.bytes[(row * self.size[1] + column) * self.channels + channel].into()
    }

    /// The image in another size. Whole numbers only, so that every machine
    /// comes to the same bytes.
    pub fn resized(self, size: [u32; 2], resize: Resize) -> Self {
        let size = size.map(|side| side as usize);
        if size == self.size {
            return self;
        }
        let mut bytes = Vec::with_capacity(size[0] * size[1] * self.channels);
        let rows: Vec<Between> =
            (0..size[0]).map(|at| between(at, size[0], self.size[0])).collect();
        let columns = (0..size[1]).map(|at| between(at, size[1], self.size[1]));
        let columns: Vec<Between> = columns.collect();
        for row in &rows {
            for column in &columns {
                for channel in 0..self.channels {
                    bytes.push(match resize {
                        Resize::Nearest => self.at(row.nearest(), column.nearest(), channel) as u8,
                        Resize::Bilinear => self.blend(row, column, channel),
                    });
                }
            }
        }
        Pixels { size, bytes, channels: self.channels }
    }

    fn blend(&self, row: &Between, column: &Between, channel: usize) -> u8 {
        let line = |row: usize| {
            self.at(row, column.low, channel) * (ONE - column.share)
                + self.at(row, column.high, channel) * column.share
        };
        let sum = u64::from(line(row.low)) * u64::from(ONE - row.share)
            + u64::from(line(row.high)) * u64::from(row.share);
        let one = u64::from(ONE) * u64::from(ONE);
        ((sum + one / 2) / one) as u8
    }

    /// Appends the channels one after the other.
    pub fn planes(&self, out: &mut Vec<u8>) {
        for channel in 0..self.channels {
            out.extend(self.bytes.iter().skip(channel).step_by(self.channels));
        }
    }
}

/// One, in shares of the way from a pixel to the next.
const ONE: u32 = 1 << 12;

/// A place between two neighbouring pixels.
struct Between {
    low: usize,
    high: usize,
    /// How far it is from `low`, of [`ONE`].
    share: u32,
}

impl Between {
    fn nearest(&self) -> usize {
        if self.share * 2 < ONE { self.low } else { self.high }
    }
}

/// Where the middle of pixel `at` of `to` lies among the middles of `from` pixels.
fn between(at: usize, to: usize, from: usize) -> Between {
    // In halves of a pixel of the result: (2 at + 1) from / to - 1, times ONE / 2.
    let (at, to, from) = (at as u64, to as u64, from as u64);
    let place = ((2 * at + 1) * from * u64::from(ONE) / to).saturating_sub(ONE.into()) / 2;
    let low = (place / u64::from(ONE)).min(from - 1);
    let share = if low + 1 < from { (place % u64::from(ONE)) as u32 } else { 0 };
    Between { low: low as usize, high: (low + 1).min(from - 1) as usize, share }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(size: [usize; 2], bytes: &[u8]) -> Pixels {
        Pixels { size, channels: 1, bytes: bytes.to_vec() }
    }

    #[test]
    fn sizes_change_by_whole_numbers() {
        let image = grey([2, 2], &[0, 100, 200, 60]);
        let halves = image.clone().resized([1, 1], Resize::Bilinear);
        assert_eq!(halves.bytes, [90], "the mean of four");
        let wider = image.clone().resized([2, 4], Resize::Bilinear);
        assert_eq!(wider.bytes, [0, 25, 75, 100, 200, 165, 95, 60]);
        let nearest = image.clone().resized([4, 4], Resize::Nearest);
        assert_eq!(nearest.bytes[..4], [0, 0, 100, 100]);
        assert_eq!(nearest.bytes[12..], [200, 200, 60, 60]);
        assert_eq!(image.clone().resized([2, 2], Resize::Nearest), image);
        let one = grey([1, 1], &[7]).resized([3, 2], Resize::Bilinear);
        assert_eq!(one.bytes, [7; 6]);
    }

    #[test]
    fn channels_change_and_come_apart() {
        let colours = Pixels { size: [1, 2], channels: 3, bytes: vec![255, 0, 0, 0, 255, 10] };
        let mut planes = Vec::new();
        colours.planes(&mut planes);
        assert_eq!(planes, [255, 0, 0, 255, 0, 10]);
        assert_eq!(colours.with_channels(1).bytes, [76, 151]);
        assert_eq!(grey([1, 1], &[9]).with_channels(3).bytes, [9, 9, 9]);
        assert_eq!(on_black(&[200, 255, 200, 0, 200, 128], 1), [200, 0, 100]);
    }
}
