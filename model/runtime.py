"""What runs the frame encoder: PyTorch, or OpenVINO, which is about twice as fast on CPUs.

On a GPU, PyTorch computes in bfloat16 with the channels last in memory, as frames come anyway, and many frames at once.

Frames are independent of each other, so the OpenVINO runtime gives each to a stream of its own and one thread: it
scales with the cores, and a frame's features are bit for bit the same whatever it is batched with.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import itertools
import threading
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.cache import read_cached, write_cached
from model.cores import num_usable_cores
from model.errors import ModelError
from model.frame_encoder import EfficientNetLite0, FrameEncoder
from model.gpu_batches import GPU_BATCH_SIZES, gpu_batches
from model.int8 import quantize_rows
from model.int8_hardware import integers_are_exact

if TYPE_CHECKING:
    import openvino as ov

RUNTIMES = ("auto", "torch", "compiled", "openvino")
MAX_FRAMES_PER_BATCH = 32


class FrameRuntime(Protocol):
    """Anything that turns a batch of frames into features.

    Attributes:
        name: "torch", "compiled" or "openvino".
    """

    name: str

    def __call__(self, frames: Tensor) -> Tensor:
        """Frames uint8 [N, S, S, 3] in RGB on any device -> features float32 [N, K, D], without gradients."""
        ...


class TorchRuntime:
    """Runs the module where its weights are, at most 32 frames at a time.

    Args:
        encoder: the module; later changes of its weights are seen.
    """

    name = "torch"

    def __init__(self, encoder: FrameEncoder) -> None:
        self._encoder = encoder

    def __call__(self, frames: Tensor) -> Tensor:
        device = next(self._encoder.parameters()).device
        with torch.inference_mode():
            batches = [self._encoder(batch.to(device)) for batch in frames.split(MAX_FRAMES_PER_BATCH)]
        return torch.cat(batches)  # outside inference mode, so that the result can be trained on


class GpuRuntime:
    """Runs the module in bfloat16 with the channels last in memory, 256 frames at a time, and 32 of what is left.

    Networks that were calibrated for 8-bit integers stay in float32: bfloat16 cannot tell their 256 steps apart.

    Args:
        encoder: the module, on its device; its weights are laid out anew in memory.
        compiled: let `torch.compile` fuse its operations: a minute at the start, for less time a batch.
    """

    def __init__(self, encoder: FrameEncoder, *, compiled: bool = False) -> None:
        self.name = "compiled" if compiled else "torch"
        self._encoder = encoder
        self._encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in its stub
        self._network: Any = torch.compile(self._encoder, dynamic=False) if compiled else self._encoder
        self._sizes = GPU_BATCH_SIZES[-1:] if compiled else GPU_BATCH_SIZES  # each would be compiled anew
        self._autocast = not is_calibrated(encoder)

    def __call__(self, frames: Tensor) -> Tensor:
        device = next(self._encoder.parameters()).device
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=self._autocast):
            starts = itertools.accumulate(gpu_batches(len(frames), self._sizes), initial=0)
            batches = [self._run(frames[start:end], end - start, device) for start, end in itertools.pairwise(starts)]
        return torch.cat(batches)

    def _run(self, frames: Tensor, size: int, device: torch.device) -> Tensor:
        batch = frames.to(device, non_blocking=True)
        if len(batch) < size:
            batch = torch.cat([batch, batch.new_zeros(size - len(batch), *batch.shape[1:])])
        features: Tensor = self._network(batch)
        return features[: len(frames)].float()


class OpenVinoRuntime:
    """Runs a copy of the encoder's weights, as they are now, on the CPU: in float32, or in integers if calibrated so.

    Where the processor has no exact products of 8-bit integers, the same rounded numbers are multiplied as floats.

    Args:
        encoder: where the weights come from; later changes of it are not seen.
        num_threads: frames computed at the same time; None means one a core that this process may use.
    """

    name = "openvino"

    def __init__(self, encoder: EfficientNetLite0, num_threads: int | None = None) -> None:
        import openvino as ov

        num_threads = num_threads or num_usable_cores()
        self._feature_shape = (encoder.config.num_tokens, encoder.config.feature_dim)
        settings = {
            "INFERENCE_NUM_THREADS": num_threads,
            "NUM_STREAMS": num_threads,
            "ENABLE_CPU_PINNING": False,  # pinned, several one-thread processes land on the same core
            "INFERENCE_PRECISION_HINT": "f32",  # or bfloat16 hardware would give other features than the rest
        }
        compiled = _compiled(encoder, settings)
        self._lock = threading.Lock()  # one batch at a time
        # A frame computed by the thread that asks costs a twelfth less than one handed to another thread.
        self._request: Any = compiled.create_infer_request() if num_threads == 1 else None
        self._queue: Any = None if num_threads == 1 else ov.AsyncInferQueue(compiled, num_threads)

    def __call__(self, frames: Tensor) -> Tensor:
        pixels = frames.contiguous().cpu().numpy()
        features = np.empty((len(pixels), *self._feature_shape), np.float32)
        with self._lock:
            if self._request is not None:
                self._compute_here(pixels, features)
            else:
                self._compute_in_threads(pixels, features)
        return torch.from_numpy(features)

    def _compute_here(self, pixels: np.ndarray, features: np.ndarray) -> None:
        import openvino as ov

        for position in range(len(pixels)):
            self._request.set_input_tensor(ov.Tensor(pixels[position : position + 1], shared_memory=True))
            self._request.infer()
            features[position] = self._request.get_output_tensor().data[0]

    def _compute_in_threads(self, pixels: np.ndarray, features: np.ndarray) -> None:
        def store(request: Any, position: int) -> None:
            features[position] = request.get_output_tensor().data[0]

        self._queue.set_callback(store)
        for position in range(len(pixels)):
            self._queue.start_async(pixels[position : position + 1], userdata=position)
        self._queue.wait_all()


def is_calibrated(encoder: FrameEncoder) -> bool:
    """Whether it computes in 8-bit integers: some of its convolutions have a range for their input."""
    return any(getattr(module, "input_range", None) is not None for module in encoder.modules())


def make_runtime(
    encoder: FrameEncoder, kind: str, device: torch.device, num_threads: int | None = None
) -> FrameRuntime:
    """The runtime of that kind; "auto" is OpenVINO for EfficientNet on a CPU where it is installed, else PyTorch.

    Raises:
        ModelError: the kind is unknown, or OpenVINO was asked for but is not installed or cannot run this encoder.
    """
    if kind not in RUNTIMES:
        raise ModelError(f"the runtime must be one of {', '.join(RUNTIMES)}, got {kind!r}")
    obstacle = _openvino_obstacle(encoder, device)
    if kind == "openvino" and obstacle:
        raise ModelError(f"the runtime openvino {obstacle}; use the runtime torch or auto")
    if kind == "compiled" and device.type != "cuda":
        raise ModelError(f"the runtime compiled runs on a GPU only, got the device {device.type!r}; use auto")
    if device.type == "cuda":
        return GpuRuntime(encoder, compiled=kind == "compiled")
    if kind == "torch" or obstacle or not isinstance(encoder, EfficientNetLite0):
        return TorchRuntime(encoder)
    return OpenVinoRuntime(encoder, num_threads)


def _compiled(encoder: EfficientNetLite0, settings: dict[str, Any]) -> ov.CompiledModel:
    """The network for this processor: read from the cache, or compiled and kept there for the next worker."""
    import openvino as ov

    core = ov.Core()
    in_integers = is_calibrated(encoder) and integers_are_exact()
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((ov.__version__, core.get_property("CPU", "FULL_DEVICE_NAME"), settings, in_integers)).encode())
    for name, tensor in encoder.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    name = f"openvino-{digest.hexdigest()}.blob"
    if (blob := read_cached(name)) is not None:
        try:
            return core.import_model(io.BytesIO(blob), "CPU", settings)
        except RuntimeError:
            pass  # not whole, or of another build: it is made anew
    compiled = core.compile_model(build_openvino_graph(encoder, in_integers=in_integers), "CPU", settings)
    write_cached(name, compiled.export_model().getvalue())
    return compiled


def _openvino_obstacle(encoder: FrameEncoder, device: torch.device) -> str:
    if device.type != "cpu":
        return f"runs on the CPU only, got the device {device.type!r}"
    if not isinstance(encoder, EfficientNetLite0):
        return f"cannot run the backbone {encoder.config.backbone!r}"
    return "" if importlib.util.find_spec("openvino") else "is not installed (pip install openvino)"


def build_openvino_graph(encoder: EfficientNetLite0, *, in_integers: bool = True) -> ov.Model:
    """One frame, uint8 [1, S, S, 3] -> float32 [1, 1, D]: the encoder operation by operation, BatchNorm folded in.

    Written out rather than traced: tracing takes seconds in every worker, and this a tenth of one. Convolutions with an
    input range compute in 8-bit integers: OpenVINO does so where it finds inputs rounded to 256 steps and weights that
    are codes times scales. Without `in_integers` it finds the same weights as floats: the same numbers, no faster.
    """
    import openvino as ov
    from openvino import opset13 as ops

    def convolve(states: Any, layer: Any) -> Any:
        convolution, norm = layer
        weight, bias = _fold(convolution, norm)
        stride, total = convolution.stride[0], convolution.kernel_size[0] - convolution.stride[0]
        before, after = total // 2, total - total // 2
        geometry = ([stride] * 2, [before] * 2, [after] * 2, [1, 1])
        if convolution.groups > 1:  # depthwise: [C, 1, k, k] -> [C, 1, 1, k, k]
            weight = weight[:, None]
        if convolution.input_range is not None:
            low, high = convolution.input_range.cpu().numpy()
            states = ops.fake_quantize(states, low, high, low, high, 256)
            weight = in_int8(weight) if in_integers else weight
        multiply = ops.group_convolution if convolution.groups > 1 else ops.convolution
        return ops.add(multiply(states, weight, *geometry), bias)

    def in_int8(weight: NDArray[np.float32]) -> Any:
        codes, scales = quantize_rows(torch.from_numpy(weight))
        per_row = scales.view(-1, *[1] * (weight.ndim - 1)).numpy()
        return ops.multiply(ops.convert(ops.constant(codes.numpy()), np.float32), per_row)

    def relu6(states: Any) -> Any:
        return ops.clamp(states, 0.0, 6.0)

    side = encoder.config.frame_size_px
    frames = ops.parameter([1, side, side, 3], np.uint8, name="frames")
    pixels = ops.divide(ops.subtract(ops.convert(frames, np.float32), np.float32(127)), np.float32(128))
    states = relu6(convolve(ops.transpose(pixels, np.array([0, 3, 1, 2])), encoder.stem))
    for block in encoder.blocks:
        inner = states if block.expand is None else relu6(convolve(states, block.expand))
        out = convolve(relu6(convolve(inner, block.depthwise)), block.project)
        states = ops.add(states, out) if block.has_shortcut else out
    states = relu6(convolve(states, encoder.head))
    features = ops.unsqueeze(ops.reduce_mean(states, np.array([2, 3])), np.array([1]))
    return ov.Model([features], [frames], "frame_encoder")


@torch.no_grad()
def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weight [Cout, Cin / groups, k, k] and bias [1, Cout, 1, 1] that do the work of both in evaluation mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    weight = convolution.weight * scale[:, None, None, None]
    bias = (norm.bias - norm.running_mean * scale)[None, :, None, None]
    return weight.cpu().numpy(), bias.cpu().numpy()
