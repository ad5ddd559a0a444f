"""The limit to think of: TensorFlow as a native program on one core, compiled with tf.function.

Reads lines `prepare CASE` and `run MS`, answers each with one line of JSON.
"""

import json
import os
import sys
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
# What TensorFlow prints must not be taken for an answer.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import tensorflow as tf  # noqa: E402

tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)

BATCH = 64
LEARNING_RATE = 0.01
layers = tf.keras.layers


def model(name):
    if name == "mlp":
        return tf.keras.Sequential([
            layers.Input((784,)),
            layers.Dense(256, "relu"), layers.Dense(128, "relu"), layers.Dense(10),
        ])
    return tf.keras.Sequential([
        layers.Input((28, 28, 1)),
        layers.Conv2D(16, 5, padding="same", activation="relu"), layers.MaxPool2D(2),
        layers.Conv2D(32, 5, padding="same", activation="relu"), layers.MaxPool2D(2),
        layers.Flatten(), layers.Dense(128, "relu"), layers.Dense(10),
    ])


def prepare(name):
    network = model(name)
    x = tf.random.uniform((BATCH,) + network.input_shape[1:])
    labels = tf.range(BATCH) % 10
    weights = network.trainable_variables

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, network(x, training=True))
            loss = tf.reduce_mean(losses)
        for weight, gradient in zip(weights, tape.gradient(loss, weights)):
            weight.assign_sub(LEARNING_RATE * gradient)
        return loss

    first, second = float(step()), float(step())
    assert second < first, f"training does not lower the loss: {first}, then {second}"
    return step


def run(step, ms):
    start = time.perf_counter()
    steps, elapsed = 0, 0.0
    while elapsed < ms / 1000:
        float(step())
        steps += 1
        elapsed = time.perf_counter() - start
    return steps * BATCH / elapsed


def main():
    step = None
    for line in sys.stdin:
        call, argument = line.split()
        if call == "prepare":
            step = prepare(argument)
            value = tf.__version__
        else:
            value = run(step, float(argument))
        print(json.dumps(value), file=answers, flush=True)


main()
