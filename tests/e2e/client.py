"""Trains with the Python library against a running coordinator and prints what it saw as JSON.

Usage: client.py URL KEY DIGITS_CSV_GZ MODEL_FILE
"""

import json
import sys

from raven import ApiError, Client

url, key, table, model = sys.argv[1:]
client = Client(url, key)
spec = {
    "name": "digits", "format": "csv", "target": "classes", "classes": 10, "scale": 1 / 16,
    "sample_shape": [8, 8], "test_fraction": 0.2, "license": "CC BY 4.0", "source": "UCI",
}
# In pieces and at once, it is the same data set.
pieces = client.create_dataset(spec, {"table": client.upload_file(table, piece_bytes=10_000)})
client.delete_dataset(pieces.pop("id"))
dataset = client.upload_dataset(spec, {"table": table})
body = {
    "name": "python", "dataset": dataset["id"], "seed": 1,
    "model": {
        "layers": [
            {"type": "flatten"}, {"type": "dense", "units": 32, "activation": "relu"}, {"type": "dense", "units": 10},
        ],
        "loss": "cross_entropy",
    },
    "optimizer": {"kind": "adam"},
    "training": {
        "epochs": 3, "batch": 64, "micro_batch": 16, "schedule": {"kind": "constant", "learning_rate": 0.003},
    },
}
try:
    client.create_job({**body, "dataset": "ds_0000000000000000"})
    refusal = None
except ApiError as error:
    refusal = [error.status, error.field]
job = client.create_job(body)
events = list(client.events(job["id"]))
# From the middle on: what was seen before must not come again.
later = list(client.events(job["id"], after=events[len(events) // 2].id))
done = client.wait(job["id"], timeout_s=30)
sha256 = client.download_model(job["id"], model)
print(json.dumps({
    "dataset": dataset, "pieces": pieces, "uploads": client.uploads(), "refusal": refusal, "names": [event.name for event in events],
    "ids": [event.id for event in events], "later": [event.id for event in later],
    "last": events[-1].data, "job": done, "sha256": sha256,
    "listed": [[one["id"] for one in client.jobs()], [one["id"] for one in client.datasets()]],
}))
