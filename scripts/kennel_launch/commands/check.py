"""`kennel check`: whether a launch would work, and what it would cost; creates nothing."""

import argparse

from kennel.hyperparameters import OF_TRACKING
from kennel_launch import settings
from kennel_launch.advice import adviser
from kennel_launch.hosting import capacity, scaling, specs

_LAUNCHES = ("train", "deploy", "transform")
_SERVES = "endpoint_instance_type"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "kennel check train|deploy|transform [flags]"
    parser.add_argument("launch", choices=_LAUNCHES, help="what of, with the settings that it would have")
    rows = settings.ROWS
    parser.add_argument(
        *(settings.flag(name) for name in ("instance_type", _SERVES)),
        metavar="TYPE",
        help=f"that trains ({rows['instance_type'].default}) or serves ({rows[_SERVES].default})",
    )
    parser.add_argument("--mode", choices=specs.MODES, default=specs.REAL_TIME, help="of the endpoint")
    parser.add_argument("--memory", type=int, default=specs.MEMORY, metavar="MB", help="of a serverless one")
    parser.add_argument(
        "--max-concurrency",
        type=int,
        default=specs.CONCURRENCY,
        metavar="N",
        help="requests that it takes at once",
    )
    parser.add_argument("--instances", type=int, metavar="N", help="of the endpoint (1)")
    parser.add_argument("--autoscale", default="", metavar="MIN..MAX", help="the fewest and the most of them, instead")
    parser.add_argument("--provisioned", type=int, metavar="N", help="of a serverless one, always warm")
    parser.add_argument("--spot", action="store_true", help="train on spare machines")
    parser.add_argument("--remote-debug", action="store_true", help="train with a shell in reach of aws ssm")
    parser.add_argument("--parallel", type=int, default=1, metavar="N", help="training jobs at a time")
    parser.add_argument("--hours", type=float, metavar="N", help="the longest that it can take")
    settings.add_flags(parser, [name for name in rows if name not in ("instance_type", _SERVES, *OF_TRACKING)])


def run(options: argparse.Namespace) -> int:
    """Shows the advice, and what it would add to the request.

    Raises:
        UserError: the launch would fail, or a flag is wrong.
    """
    capacity.check_numbers(options)
    given = vars(options)
    if options.launch != "train":
        given = given | {"instance_type": None, _SERVES: options.instance_type}
    wanted = settings.load(given)
    if options.launch == "train":
        advice = adviser.check_training(
            wanted,
            spot=options.spot,
            jobs=options.parallel,
            hours=options.hours,
            remote_debug=options.remote_debug,
        )
    elif options.launch == "deploy":
        count = options.instances or 1
        scaled = scaling.parse(options.autoscale, 1) if options.autoscale else specs.Autoscale(count, count, 1)
        advice = adviser.check_endpoint(
            wanted,
            options.mode,
            memory=options.memory,
            concurrency=options.max_concurrency,
            provisioned=options.provisioned or 0,
            instances=(scaled.least, scaled.most),
        )
    else:
        advice = adviser.check_transform(wanted, hours=options.hours)
    for line in (*advice.lines, *(f"{name}: {value}" for name, value in advice.add.items())):
        print(line)
    return 0
