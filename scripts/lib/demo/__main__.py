"""Trains a model on the browsers of visitors who said yes, and checks that it is right.

One machine plays every part: the coordinator on 127.0.0.1, a partner's news
page on news.localhost (another site), and visitors in headless Chromium.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from raven import Client, JobFailed, RavenError

from . import contributors, coordinator, data, recipes, verify
from .partner import Partner
from .progress import Progress

ROOT = Path(os.environ["ROOT"])
# Share of the machine that each visitor gives: on two cores one worker that never sleeps.
SHARE_PERCENT = 50
POLL_S = 0.5


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__.splitlines()[0])
    have_fashion = "FASHION_MNIST" in os.environ
    default = "fashion-mnist" if have_fashion else "digits"
    parser.add_argument("--dataset", choices=("digits", "fashion-mnist"), default=default, help=f"default: {default}")
    parser.add_argument("--model", choices=("cnn", "mlp"), help="default: cnn for fashion-mnist, mlp for digits")
    parser.add_argument("--contributors", type=int, default=3, metavar="N", help="visitors who say yes; default: 3")
    parser.add_argument("--placement", choices=("replica", "master"), default="replica")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--epochs", type=int, help="default: what the model needs")
    parser.add_argument("--headless", action="store_true", help="no prompts, no waiting at the end")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON")
    parser.add_argument("--keep", action="store_true", help="keep the coordinator's data folder and the model")
    options = parser.parse_args()
    if not 1 <= options.contributors <= 64:
        parser.error("--contributors must be between 1 and 64")
    if options.epochs is not None and not 1 <= options.epochs <= 1000:
        parser.error("--epochs must be between 1 and 1000")
    if options.dataset == "fashion-mnist" and not have_fashion:
        parser.error("fashion-mnist is not on this machine: install Debian's dataset-fashion-mnist")
    options.model = options.model or ("cnn" if options.dataset == "fashion-mnist" else "mlp")
    return options


def _say(text: str = "") -> None:
    print(text, file=sys.stderr, flush=True)


def _train(client: Client, job_id: str, check_visitors: Callable[[], None]) -> dict:
    """Follows a job to its end and returns it; raises `JobFailed` where it ends without a model."""
    progress = Progress()
    try:
        while True:
            job = client.job(job_id)
            progress.show(job)
            if job["state"] == "completed":
                return job
            if job["state"] in ("failed", "cancelled"):
                raise JobFailed(job)
            check_visitors()
            time.sleep(POLL_S)
    finally:
        progress.end()


def _time(text: str) -> datetime:
    # Python before 3.11 does not read the Z.
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _result(options: argparse.Namespace, job: dict, accuracy: float, wall_s: float) -> dict:
    # From the first round's first task to the end: rounds, evaluations and whatever they waited for.
    train_s = (_time(job["ended_at"]) - _time(job["started_at"])).total_seconds()
    return {
        "dataset": options.dataset,
        "model": options.model,
        "placement": options.placement,
        "seed": options.seed,
        "epochs": job["epoch"],
        "test_accuracy": accuracy,
        # Over that whole time, not the last moment's figure.
        "images_per_s": round(job["train_rows"] * job["epoch"] / train_s, 1),
        # Different contributors whose work was accepted for the job.
        "contributors": job["contributors"],
        "rounds": job["round"],
        "tasks": job["tasks"],
        "wall_s": round(wall_s, 2),
        "train_s": round(train_s, 2),
        "model_sha256": job["model_sha256"],
    }


def _run(options: argparse.Namespace, work: Path) -> None:
    started = time.monotonic()
    recipe = recipes.RECIPES[options.dataset, options.model]
    dataset = data.load(options.dataset, ROOT)
    partner = Partner(ROOT / "scripts/lib/demo-site")
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(coordinator.running(ROOT, work / "data", work / "coordinator.log"))
        client = Client(running.url, running.key)
        site = client.create_site("The Harbour Courier", [partner.origin])
        partner.tag = site["snippet"]
        stack.enter_context(partner.serving())
        _say(f"coordinator   {running.url}/   (live page; test key {running.key})")
        _say(f"partner page  {partner.origin}/")
        _say(f"uploading {options.dataset}")
        uploaded = client.upload_dataset(dataset.spec, dataset.files)
        _say(f"opening {options.contributors} visitors in headless Chromium")
        check_visitors = stack.enter_context(
            contributors.contributing(
                ROOT, partner.origin + "/", options.contributors, SHARE_PERCENT, work / "contributors.log"
            )
        )
        body = recipes.job(
            recipe, dataset, uploaded["id"], placement=options.placement, seed=options.seed,
            epochs=options.epochs or recipe.epochs,
        )
        posted = client.create_job(body)
        _say(f"training {options.model} as {posted['id']} ({posted['parameters']} parameters)")
        job = _train(client, posted["id"], check_visitors)
        model, loader = work / "model.safetensors", work / "load_model.py"
        sha256 = client.download_model(job["id"], model)
        client.download_loader(job["id"], loader)
        if sha256 != job["model_sha256"]:
            raise verify.Disagreement(f"the model's digest is {sha256}, the job says {job['model_sha256']}")
        accuracy = verify.test_accuracy(recipe, dataset, model, loader, job, work)
        job["train_rows"] = uploaded["train_rows"]
        result = _result(options, job, accuracy, time.monotonic() - started)
        _finish(options, result, recipe, model)
        if not options.headless:
            _stay(running.url, partner.origin)


def _finish(options: argparse.Namespace, result: dict, recipe: recipes.Recipe, model: Path) -> None:
    text = json.dumps(result, indent=2) + "\n"
    if options.json is not None:
        options.json.write_text(text)
    print(text, end="", flush=True)
    _say(f"the NumPy forward pass gets {result['test_accuracy']:.2%} of the test set right")
    if options.keep or not options.headless:
        _say(f"model: {model}")
    # Fewer epochs than the recipe's promise nothing.
    promised = options.epochs is None or options.epochs >= recipe.epochs
    if promised and result["test_accuracy"] < recipe.accuracy_min:
        raise verify.Disagreement(
            f"test accuracy {result['test_accuracy']:.4f} is below the expected {recipe.accuracy_min}"
        )


def _stay(url: str, partner: str) -> None:
    _say()
    _say(f"Look at {url}/ for the network and {partner}/ for the partner page; Ctrl-C ends it.")
    _say(f"`coordinator contribute --to {url}` lends this machine without a browser.")
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()


def main() -> int:
    options = _arguments()
    # Ended from outside, it still closes browsers and coordinator.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    work = Path(tempfile.mkdtemp(prefix="raven-demo-"))
    failed = True
    try:
        _run(options, work)
        failed = False
    except (RavenError, contributors.OpenFailed, coordinator.StartFailed, verify.Disagreement) as error:
        _say(f"error: {error}")
    except KeyboardInterrupt:
        _say("stopped")
    finally:
        if failed or options.keep:
            _say(f"data, logs and model are in {work}")
        else:
            shutil.rmtree(work, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
