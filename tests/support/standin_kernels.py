"""What a stand-in engine computes with: the same few kernels as CUDA's own and as numpy's.

    kernels = kernels_on(device)
    kernels.launch("row_sums", rows, x, y, columns)

On a GPU they are compiled by NVRTC and launched on the device's stream through the driver; on a
`HostDevice` they are functions that its stream does when it is waited for. Each takes the number of
threads, then its arguments: addresses and sizes as int, factors as float.

Elements are widened to float64 and narrowed again, so that every type has the same two kernels.
Values that are compared exactly must be exact in the type, since rounding is not what is looked at.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any, Final, Protocol

import ml_dtypes
import numpy as np

from superbrain.engines.device_memory import Device, DeviceError
from superbrain.engines.port import Array
from tests.support.host_device import HostDevice

ELEMENTS: Final[dict[str, np.dtype[Any]]] = {
    "FLOAT": np.dtype(np.float32),
    "HALF": np.dtype(np.float16),
    "INT8": np.dtype(np.int8),
    "UINT8": np.dtype(np.uint8),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "BOOL": np.dtype(np.bool_),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "FP8": np.dtype(ml_dtypes.float8_e4m3fn),
}
_BLOCK: Final = 128
_SOURCE: Final = r"""
typedef unsigned char u8; typedef unsigned short u16; typedef unsigned int u32;
typedef long long i64;
template <int KIND> struct Element;
#define PLAIN(NAME, TYPE) \
  struct NAME { typedef TYPE type; \
    static __device__ double wide(TYPE v) { return (double)v; } \
    static __device__ TYPE narrow(double v) { return (TYPE)v; } };
PLAIN(FLOAT, float) PLAIN(INT8, signed char) PLAIN(UINT8, u8) PLAIN(INT32, int) PLAIN(INT64, i64)
struct BOOL { typedef u8 type;
  static __device__ double wide(u8 v) { return v != 0; }
  static __device__ u8 narrow(double v) { return v != 0; } };
struct HALF { typedef u16 type;
  static __device__ double wide(u16 v) {
    float f; asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(v)); return f; }
  static __device__ u16 narrow(double v) {
    u16 h; float f = (float)v; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f)); return h; } };
struct BF16 { typedef u16 type;
  static __device__ double wide(u16 v) { return __uint_as_float((u32)v << 16); }
  static __device__ u16 narrow(double v) {
    u32 bits = __float_as_uint((float)v);
    return (u16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16); } };
struct FP8 { typedef u8 type;
  static __device__ double wide(u8 v) {
    int exponent = (v >> 3) & 15, mantissa = v & 7;
    double size = exponent ? ldexp(1.0 + mantissa / 8.0, exponent - 7) : ldexp(mantissa / 8.0, -6);
    return v & 128 ? -size : size; }
  static __device__ u8 narrow(double v) {
    int best = 0;
    for (int code = 1; code < 256; ++code)
      if ((code & 127) != 127 && fabs(wide(code) - v) < fabs(wide(best) - v)) best = code;
    return (u8)best; } };
#define INDEX ((i64)blockIdx.x * blockDim.x + threadIdx.x)
#define WIDEN_AND_NARROW(T) \
  extern "C" __global__ void widen_##T(i64 n, const T::type *x, double *y) { \
    if (INDEX < n) y[INDEX] = T::wide(x[INDEX]); } \
  extern "C" __global__ void narrow_##T(i64 n, const double *x, T::type *y, const double *f) { \
    if (INDEX < n) y[INDEX] = T::narrow(f[0] * x[INDEX] + f[1]); }
WIDEN_AND_NARROW(FLOAT) WIDEN_AND_NARROW(HALF) WIDEN_AND_NARROW(INT8) WIDEN_AND_NARROW(UINT8)
WIDEN_AND_NARROW(INT32) WIDEN_AND_NARROW(INT64) WIDEN_AND_NARROW(BOOL) WIDEN_AND_NARROW(BF16)
WIDEN_AND_NARROW(FP8)
extern "C" __global__ void scaled_sum(i64 n, const float *a, const float *b, float *y, double f) {
  if (INDEX < n) y[INDEX] = (float)(a[INDEX] + f * b[INDEX]); }
extern "C" __global__ void row_sums(i64 rows, const float *x, float *y, i64 columns) {
  if (INDEX >= rows) return;
  float sum = 0;
  for (i64 column = 0; column < columns; ++column) sum += x[INDEX * columns + column];
  y[INDEX] = sum; }
extern "C" __global__ void fill(i64 n, float *y, const float *x) { if (INDEX < n) y[INDEX] = *x; }
extern "C" __global__ void count_positive(i64 one, const float *x, i64 n, i64 *count) {
  i64 found = 0;
  for (i64 i = 0; i < n; ++i) found += x[i] > 0;
  *count = found; }
extern "C" __global__ void take_positive(i64 one, const float *x, i64 n, float *y) {
  for (i64 i = 0; i < n; ++i) if (x[i] > 0) *y++ = x[i]; }
extern "C" __global__ void wait_us(i64 one, i64 microseconds) {
  u32 low; asm volatile("mov.u32 %0, %%globaltimer_lo;" : "=r"(low));
  for (u32 now = low; now - low < 1000 * microseconds;)
    asm volatile("mov.u32 %0, %%globaltimer_lo;" : "=r"(now)); }
"""


# What each takes behind its number of threads: p an address, i an integer, d a double.
_TAKES: Final = {
    **{f"widen_{kind}": "pp" for kind in ELEMENTS},
    **{f"narrow_{kind}": "ppp" for kind in ELEMENTS},
    "scaled_sum": "pppd",
    "row_sums": "ppi",
    "fill": "pp",
    "count_positive": "pip",
    "take_positive": "pip",
    "wait_us": "i",
}
_CTYPES: Final = {"p": ctypes.c_void_p, "i": ctypes.c_int64, "d": ctypes.c_double}


class Kernels(Protocol):
    """Launches kernels on the stream of one device."""

    @property
    def capturing(self) -> bool:
        """Whether the stream is being captured."""

    def launch(self, name: str, threads: int, *arguments: Any) -> None:  # noqa: ANN401
        """Put one kernel on the stream; none for no threads."""

    def write(self, address: int, array: Array) -> None:
        """Copy to the device at once; not while the stream is captured."""

    def read(self, address: int, like: np.dtype[Any]) -> Any:  # noqa: ANN401
        """Wait for the stream and read one element; not while the stream is captured."""


def kernels_on(device: Device) -> Kernels:
    """Give what computes on a device."""
    return HostKernels(device) if isinstance(device, HostDevice) else CudaKernels(device.stream)


# --- in the host's memory ------------------------------------------------------------------------


class HostKernels:
    """The kernels as numpy does them, when the stream comes to them."""

    def __init__(self, device: HostDevice) -> None:
        self._device = device

    @property
    def capturing(self) -> bool:
        return self._device.capturing

    def launch(self, name: str, threads: int, *arguments: Any) -> None:  # noqa: ANN401
        if len(arguments) != len(_TAKES[name]):
            raise DeviceError(f"{name} takes {len(_TAKES[name])} arguments, not {len(arguments)}")
        if threads:
            verb, kind = _split(name)
            work = getattr(self, f"_{verb}")
            self._device.enqueue(functools.partial(work, *kind, threads, *arguments))

    def write(self, address: int, array: Array) -> None:
        self._device.upload(address, array.reshape(-1).view(np.uint8))
        self._device.synchronize()

    def read(self, address: int, like: np.dtype[Any]) -> Any:  # noqa: ANN401
        found = np.empty(like.itemsize, np.uint8)
        self._device.download(found, address)
        self._device.synchronize()
        return found.view(like)[0]

    def _at(self, address: int, count: int, kind: Any = np.float32) -> Array:  # noqa: ANN401
        element = np.dtype(kind)
        return self._device.memory(address, count * element.itemsize).view(element)

    def _widen(self, kind: str, n: int, x: int, y: int) -> None:
        self._at(y, n, np.float64)[...] = self._at(x, n, ELEMENTS[kind])

    def _narrow(self, kind: str, n: int, x: int, y: int, factors: int) -> None:
        scale, shift = self._at(factors, 2, np.float64)
        found = scale * self._at(x, n, np.float64) + shift
        self._at(y, n, ELEMENTS[kind])[...] = found.astype(ELEMENTS[kind])

    def _scaled_sum(self, n: int, a: int, b: int, y: int, factor: float) -> None:
        self._at(y, n)[...] = self._at(a, n) + factor * self._at(b, n)

    def _row_sums(self, rows: int, x: int, y: int, columns: int) -> None:
        self._at(y, rows)[...] = self._at(x, rows * columns).reshape(rows, columns).sum(axis=1)

    def _fill(self, n: int, y: int, x: int) -> None:
        self._at(y, n)[...] = self._at(x, 1)[0]

    def _count_positive(self, _one: int, x: int, n: int, count: int) -> None:
        self._at(count, 1, np.int64)[0] = np.count_nonzero(self._at(x, n) > 0)

    def _take_positive(self, _one: int, x: int, n: int, y: int) -> None:
        found = self._at(x, n)
        found = found[found > 0]
        self._at(y, found.size)[...] = found

    def _wait_us(self, _one: int, microseconds: int) -> None:
        """Nothing: whatever is on this stream is late anyway."""


def _split(name: str) -> tuple[str, tuple[str, ...]]:
    verb, _, kind = name.rpartition("_")
    return (verb, (kind,)) if kind in ELEMENTS else (name, ())


# --- on a GPU ------------------------------------------------------------------------------------


class CudaKernels:
    """The kernels as NVRTC compiles them, launched through the driver in the current context."""

    def __init__(self, stream: int) -> None:
        from cuda.bindings import driver

        self._driver = driver
        self._stream = driver.CUstream(stream)
        self._module = _asked(driver.cuModuleLoadData(compiled(_target(driver))))
        self._functions: dict[str, Any] = {}

    @property
    def capturing(self) -> bool:
        status = _asked(self._driver.cuStreamIsCapturing(self._stream))
        none: object = self._driver.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_NONE
        return bool(status != none)

    def launch(self, name: str, threads: int, *arguments: Any) -> None:  # noqa: ANN401
        if not threads:
            return
        kinds = tuple(_CTYPES[one] for one in "i" + _TAKES[name])
        blocks = -(-threads // _BLOCK)
        where = (blocks, 1, 1, _BLOCK if threads > 1 else 1, 1, 1, 0, self._stream)
        _asked(
            self._driver.cuLaunchKernel(
                self._function(name), *where, ((threads, *arguments), kinds), 0
            )
        )

    def write(self, address: int, array: Array) -> None:
        _asked(
            self._driver.cuMemcpyHtoDAsync(address, array.ctypes.data, array.nbytes, self._stream)
        )
        _asked(self._driver.cuStreamSynchronize(self._stream))

    def read(self, address: int, like: np.dtype[Any]) -> Any:  # noqa: ANN401
        found = np.empty(1, like)
        _asked(
            self._driver.cuMemcpyDtoHAsync(found.ctypes.data, address, found.nbytes, self._stream)
        )
        _asked(self._driver.cuStreamSynchronize(self._stream))
        return found[0]

    def _function(self, name: str) -> Any:  # noqa: ANN401
        if name not in self._functions:
            found = self._driver.cuModuleGetFunction(self._module, name.encode())
            self._functions[name] = _asked(found)
        return self._functions[name]


def _target(driver: Any) -> str:  # noqa: ANN401
    kinds = driver.CUdevice_attribute
    wanted = (
        kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
        kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
    )
    gpu = _asked(driver.cuCtxGetDevice())
    return "sm_" + "".join(str(_asked(driver.cuDeviceGetAttribute(one, gpu))) for one in wanted)


@functools.cache
def compiled(target: str) -> bytes:
    """Compile the kernels for one kind of GPU, such as `sm_90`; this needs none."""
    from cuda.bindings import nvrtc

    program = _asked(nvrtc.nvrtcCreateProgram(_SOURCE.encode(), b"standin.cu", 0, [], []))
    options = [f"--gpu-architecture={target}".encode()]
    try:
        _asked(nvrtc.nvrtcCompileProgram(program, len(options), options))
    except DeviceError as error:
        said = b" " * _asked(nvrtc.nvrtcGetProgramLogSize(program))
        _asked(nvrtc.nvrtcGetProgramLog(program, said))
        raise DeviceError(f"the kernels do not compile: {said.decode()}") from error
    code = b" " * _asked(nvrtc.nvrtcGetCUBINSize(program))
    _asked(nvrtc.nvrtcGetCUBIN(program, code))
    return bytes(code)


def _asked(found: tuple[Any, ...]) -> Any:  # noqa: ANN401
    status, *values = found
    if int(status):
        raise DeviceError(f"the stand-in's kernels: {status.name}")
    return values[0] if values else None
