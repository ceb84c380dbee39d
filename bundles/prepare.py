"""Makes what the sample bundles need and no package ships: clean pages, 16 kHz sound, a model.

    python bundles/prepare.py               # all of them, after fetch.py
    python bundles/prepare.py orientation   # only these

Responsible for inputs derived from fetched files and for running tabular/train.py. Needs numpy and
opencv-python-headless; tabular needs scikit-learn and skl2onnx as well. A second run makes the same
files again.
"""

import argparse
import subprocess
import sys
import wave
from pathlib import Path

import cv2
import numpy as np

HERE = Path(__file__).resolve().parent
RATE = 16000
STATE_SIZE = 320
# How far the resampler looks, in zero crossings of its kernel on each side.
CROSSINGS = 16


class PrepareError(Exception):
    """Something could not be made; the message says what, why, and what to do."""


def prepare_orientation(folder: Path) -> None:
    """The page upright, and turned clockwise three ways."""
    page = read_page(folder / "sources/page.png")
    write_image(folder / "golden/upright/request/image.png", page)
    turns = {
        "90": cv2.ROTATE_90_CLOCKWISE,
        "180": cv2.ROTATE_180,
        "270": cv2.ROTATE_90_COUNTERCLOCKWISE,
    }
    for degrees, turn in turns.items():
        write_image(folder / f"golden/turned-{degrees}/request/image.png", cv2.rotate(page, turn))


def prepare_ocr(folder: Path) -> None:
    """The page, and the page upside down: the case that the cls graph is there for."""
    page = read_page(folder / "sources/page.png")
    write_image(folder / "golden/page/request/image.png", page)
    upside_down = cv2.rotate(page, cv2.ROTATE_180)
    write_image(folder / "golden/upside-down/request/image.png", upside_down)


def prepare_voice_activity(folder: Path) -> None:
    """A few seconds of a recorded speech, and a hum that is loud but no speech."""
    write_audio(folder / "golden/speech", read_wave(folder / "sources/address.wav"))
    seconds = np.arange(2 * RATE) / RATE
    hum = sum(np.sin(2 * np.pi * 50 * k * seconds) / k for k in (1, 2, 3, 5))
    write_audio(folder / "golden/hum", 0.1 * hum)


def prepare_tabular(folder: Path) -> None:
    """The model, and scikit-learn's own answers as goldens."""
    script = folder / "train.py"
    if subprocess.run([sys.executable, str(script)], check=False).returncode != 0:
        raise PrepareError(f"{script} failed: its own message is above")


def read_page(path: Path) -> np.ndarray:
    """The pixels of a PNG file, read without its colour profile.

    libpng finds the profile of scikit-image's page odd and says so whenever the file is read.
    """
    content = path.read_bytes() if path.is_file() else b""
    plain = np.frombuffer(without_profile(content), np.uint8)
    image = cv2.imdecode(plain, cv2.IMREAD_UNCHANGED) if plain.size else None
    if image is None:
        raise PrepareError(f"{path}: expected an image, found none: run fetch.py first")
    return image


def without_profile(png: bytes) -> bytes:
    """A PNG file without its iCCP chunk; a chunk is length, type, data and CRC (PNG, 5.3)."""
    kept, at = [png[:8]], 8
    while at < len(png):
        end = at + 12 + int.from_bytes(png[at : at + 4], "big")
        if png[at + 4 : at + 8] != b"iCCP":
            kept.append(png[at:end])
        at = end
    return b"".join(kept)


def write_image(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)
    made(path)


def read_wave(path: Path) -> np.ndarray:
    """A 16-bit WAV file as mono float64 at 16 kHz."""
    if not path.is_file():
        raise PrepareError(f"{path}: expected a recording, found none: run fetch.py first")
    with wave.open(str(path)) as file:
        raw = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        samples = raw.reshape(-1, file.getnchannels()).mean(axis=1) / 32768
        return resample(samples, file.getframerate(), RATE)


def resample(samples: np.ndarray, source: int, target: int) -> np.ndarray:
    """Band-limited resampling: a Hann-windowed sinc (Smith, "Digital Audio Resampling")."""
    cutoff = min(1.0, target / source)
    reach = int(np.ceil(CROSSINGS / cutoff))
    padded = np.pad(samples, reach)
    phases = target // np.gcd(source, target)
    positions = np.arange(len(samples) * target // source) * source / target
    out = np.empty(len(positions))
    for phase in range(phases):  # every `phases`-th sample lies equally between its neighbours
        mine = positions[phase::phases]
        first = np.floor(mine).astype(int) + 1
        distance = np.arange(2 * reach) - reach + 1 - (mine[:1] % 1)
        window = np.cos(np.pi * distance / (2 * reach + 2)) ** 2
        kernel = cutoff * np.sinc(cutoff * distance) * window
        out[phase::phases] = padded[first[:, None] + np.arange(2 * reach)] @ kernel
    return out


def write_audio(case: Path, samples: np.ndarray) -> None:
    """A request with this sound and the state of a new stream.

    Rounded to 16 bits, so that the last bit of another machine's arithmetic does not show.
    """
    audio = (np.round(samples * 32767) / 32768).astype(np.float32)
    for name, tensor in {"audio": audio, "state": np.zeros(STATE_SIZE, np.float32)}.items():
        path = case / "request" / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, tensor)
        made(path)


def made(path: Path) -> None:
    kilobytes = path.stat().st_size / 1000
    print(f"made    {kilobytes:8.0f} kB  {path.relative_to(HERE)}", flush=True)


STEPS = {
    "orientation": prepare_orientation,
    "ocr": prepare_ocr,
    "voice-activity": prepare_voice_activity,
    "tabular": prepare_tabular,
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the sample bundles' derived files.")
    parser.add_argument("bundles", nargs="*", help="names of bundles; none means all")
    names = parser.parse_args().bundles
    try:
        for name in names or STEPS:
            if name not in STEPS:
                raise PrepareError(f"{name}: expected one of {', '.join(STEPS)}")
            STEPS[name](HERE / name)
    except (PrepareError, OSError) as error:
        print(f"prepare: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
