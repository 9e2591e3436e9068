"""`make train-local` and `make serve-local`: the image by `docker run`, mounted as SageMaker mounts it.

And `make train`, which has no image, and trains in this environment.
"""

import argparse
import signal
import sys
from pathlib import Path

from kennel.errors import UserError
from kennel.layout import MANIFEST, Layout
from kennel_launch.local_mode import command_lines, local_job
from kennel_launch.local_mode.command_lines import LocalTraining
from kennel_launch.machine import opt_ml, processes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="one training job; its model lands in OUT/model")
    training.add_argument("--data", type=Path, required=True)
    training.add_argument("--out", type=Path, default=local_job.OUT)
    training.add_argument("--pretrained", type=Path, help="a folder with one weights file, as channel 'pretrained'")
    training.add_argument("--hyperparameters", default="", help="'epochs=5 batch_size=32'")
    serving = commands.add_parser("serve", help="an endpoint on loopback, until Ctrl-C")
    serving.add_argument("--model", type=Path, default=Layout(local_job.OUT).model)
    serving.add_argument("--port", type=int, default=8080)
    for command in (training, serving):
        command.add_argument("--image", default="", required=command is serving)
        command.add_argument("--gpus", default="", help="docker's --gpus: all, 1, device=0")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return train(options) if options.command == "train" else serve(options)
    except UserError as error:
        print(f"{options.command}{'-local' if options.image else ''}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130 if options.command == "train" else 0  # Ctrl-C is how an endpoint ends


def train(options: argparse.Namespace) -> int:
    """Runs one job, in the container or here, and says where its model lies.

    Raises:
        UserError: it failed, or can't be started as asked.
    """
    channels = opt_ml.channels(options.data, options.pretrained)
    given = settings_of(options.hyperparameters)
    layout = local_job.run(LocalTraining(channels, given, options.image, options.gpus), options.out)
    print(f"model: {layout.model}")
    return 0


def serve(options: argparse.Namespace) -> int:
    """Serves a model folder until it is stopped."""
    if not (options.model / MANIFEST).is_file():
        raise UserError(f"MODEL={options.model} is no model folder ({MANIFEST} is missing): run make train-local first")
    print(f"curl -H 'Content-Type: image/jpeg' --data-binary @photo.jpg http://127.0.0.1:{options.port}/invocations")
    command = command_lines.serve_in_image(options.image, options.model, options.port, options.gpus)
    with processes.started(command) as process:
        return process.wait()


def settings_of(text: str) -> dict[str, str]:
    """`epochs=5 batch_size=32` as a hyperparameter table; the values are checked by the job.

    Raises:
        UserError: a word without `=`.
    """
    pairs = [word.partition("=") for word in text.split()]
    wrong = [name for name, sign, _ in pairs if not sign]
    if wrong:
        raise UserError(f"HP={text!r}: {wrong[0]!r} has no value, write 'epochs=5 batch_size=32'")
    return {name: value for name, _, value in pairs}


if __name__ == "__main__":
    sys.exit(main())
