"""What a GPU costs an hour: from a file of the user, else from public list prices, which the plan names.

The shipped ones are on-demand prices of specialised clouds, the middle of the range in "Cloud GPU pricing", Mercatus
(May 2026): 1.10-1.50 for an A100, 2.50-3.50 for an H100, 3.50-4.50 for an H200; a B200 as Spheron listed it on
17 March 2026. The same GPU costs 2 to 4 times as much elsewhere: give your own.
"""

from dataclasses import dataclass
from pathlib import Path

from sim.engine.physics import find_hardware
from sim.errors import HardwareError, InputError, ScenarioError
from sim.scenario.document import Document
from sim.units import is_number
from sim.words import show

PUBLIC = {"a100": 1.30, "h100": 3.00, "h200": 4.00, "b200": 6.03}
SOURCE = "public on-demand prices of 2026 (Mercatus, May; Spheron, March); give your own with --price"


@dataclass(frozen=True)
class Prices:
    """Price of a GPU hour by hardware, its currency, and where that comes from."""

    hour: dict[str, float]
    currency: str = "USD"
    source: str = SOURCE

    def of(self, hardware: str | None) -> float:
        """Return the price of one GPU called *hardware* for an hour.

        Raises:
            InputError: nobody has said.
        """
        name = "none" if hardware is None else find_hardware(hardware).name
        if name not in self.hour:
            known = ", ".join(self.hour)
            whose = "none: a pool names no hardware" if hardware is None else name
            raise InputError(
                f"no price for {whose}: expected a line `{name}: 2.50` (for a GPU and hour) in the file of --price; "
                f"there are {known}"
            )
        return self.hour[name]


def read(path: Path | None) -> Prices:
    """Return the prices in the YAML file at *path*, such as ``{h100: 2.50, currency: EUR}``; else public ones.

    A line for ``none`` is the price of a GPU whose pool names no hardware.

    Raises:
        InputError: it cannot be read, or a line is no price of known hardware.
    """
    if path is None:
        return Prices({**PUBLIC})
    try:
        document = Document(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--price: {path}: cannot be read ({error})") from None
    except ScenarioError as error:
        raise InputError(f"--price: {error}") from None
    if not isinstance(document.value, dict):
        raise InputError(f"--price: {path}:1: expected lines such as `h100: 2.50`, got {show(document.value)}")
    hour: dict[str, float] = {}
    words = {"currency": "USD", "source": path.name}
    for key, value in document.value.items():
        where = f"--price: {path}:{document.line((key,))}: {key}"
        if key in words:
            words[key] = str(value)
            continue
        if not (is_number(value) and 0 < value < 1e6):
            raise InputError(f"{where}: expected the price of a GPU for an hour, such as 2.50, got {show(value)}")
        try:
            hour[key if key == "none" else find_hardware(key).name] = float(value)
        except HardwareError as error:
            raise InputError(f"{where}: {error}") from None
    return Prices(hour, words["currency"], words["source"])
