"""What the driver says of the GPUs that a job uses, by NVML, for `machine_sampler`; nothing where there is none."""

from typing import Any


def handles(nvml: Any, visible: str | None) -> list[Any]:
    """The driver's handles of the GPUs that the job uses; none where there is no driver, or it does not answer.

    Args:
        visible: as CUDA reads it: numbers or (beginnings of) UUIDs, up to the first that names no GPU
            (https://docs.nvidia.com/cuda/cuda-c-programming-guide/index.html#env-vars). Numbers are taken in the
            driver's order, which is CUDA's where all GPUs are of one kind.
    """
    try:
        nvml.nvmlInit()
        every = [nvml.nvmlDeviceGetHandleByIndex(at) for at in range(nvml.nvmlDeviceGetCount())]
        names = [(str(at), _text(nvml.nvmlDeviceGetUUID(handle))) for at, handle in enumerate(every)]
    except nvml.NVMLError:
        return []
    if visible is None:
        return every
    chosen: list[Any] = []
    for wanted in visible.split(","):
        word = wanted.strip()
        found = [at for at, (number, uuid) in enumerate(names) if word in (number, uuid) or _begins(uuid, word)]
        if len(found) != 1:
            break
        chosen.append(every[found[0]])
    return chosen


def used(nvml: Any, chosen: list[Any]) -> list[tuple[float, float]]:
    """(% of the time in which any kernel ran, % of its memory in use) of each GPU; none if one does not answer.

    The driver's time is its last sampling period, 1/6 to 1 s
    (https://docs.nvidia.com/deploy/nvml-api/structnvmlUtilization__t.html).
    """
    rows = []
    try:
        for handle in chosen:
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
            busy = nvml.nvmlDeviceGetUtilizationRates(handle).gpu
            rows.append((float(busy), 100.0 * memory.used / memory.total))
    except nvml.NVMLError:
        return []
    return rows


def _begins(uuid: str, word: str) -> bool:
    return word.startswith("GPU-") and uuid.startswith(word)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
