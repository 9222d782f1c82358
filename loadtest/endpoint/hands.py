"""Faults by hand: what a scenario can let happen at a time, begun and healed by whoever is at the controls."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from sim.control import Process, faults
from sim.errors import InputError
from sim.scenario import Scenario
from sim.scenario.faults import Periodic, Random, Surge, TimedFault
from sim.scenario.messages import dotted, listed, problems
from sim.scenario.plans import kind_of, trouble
from sim.world import World


class Hands:
    """Begins and heals faults in a world, from its present time on."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._healed = world.event()
        self._begun = 0

    def begin(self, wanted: Mapping[str, Any]) -> str:
        """Begin a fault as a scenario writes it, with ``lasting`` in place of ``from`` and ``to``; return its name.

        Raises:
            InputError: what is wrong with it.
        """
        fault = read(self._world.scenario, wanted)
        self._begun += 1
        name = fault.name or f"by-hand-{self._begun}"
        self._world.process(self._happen(fault, name))
        return name

    def heal(self) -> None:
        """End every fault that was begun by hand; those of the scenario go on."""
        healed, self._healed = self._healed, self._world.event()
        healed.succeed()

    def _happen(self, fault: TimedFault, name: str) -> Process:
        world = self._world
        said = {"name": name, "mechanism": kind_of(fault), "target": faults.target_of(fault), "by_hand": True}
        effects = [e for place in faults.places(world, fault) for e in faults.begin(world, fault, place)]
        world.note_event("fault_begins", **said)
        healed = self._healed
        yield healed if fault.to is None else healed | world.timeout(fault.to)
        for effect in effects:
            world.effects.end(effect)
        world.note_event("fault_ends", **said)


def read(scenario: Scenario, wanted: Mapping[str, Any]) -> TimedFault:
    """Return the fault that *wanted* describes; its ``to`` is how long it lasts.

    Raises:
        InputError: what is wrong with it, in the words of a scenario.
    """
    if not isinstance(wanted, Mapping):
        raise InputError('expected a fault, such as {"stop": "chat/0", "how": "hang", "lasting": "30s"}')
    if timed := [key for key in ("from", "to") if key in wanted]:
        raise InputError(f"{timed[0]}: expected `lasting` in its place: a fault by hand begins now")
    raw = {("to" if key == "lasting" else key): value for key, value in wanted.items()}
    tree = {**scenario.model_dump(by_alias=True), "faults": [raw]}
    try:
        made = Scenario.model_validate(tree, context={"need_files": False})
        wrong = list(trouble(made))
    except ValidationError as error:
        wrong = problems(error)
    if wrong:
        said = [f"{dotted(keys[2:])}: {words}".removeprefix(": ") for keys, words in wrong]
        raise InputError(listed(one.replace("to: ", "lasting: ", 1) if one.startswith("to: ") else one for one in said))
    fault = made.faults[0]
    if isinstance(fault, Random | Periodic | Surge):
        kind = kind_of(fault)
        why = "callers are real, send more of them" if kind == "surge" else "a fault by hand happens once"
        raise InputError(f"{kind}: expected another fault: {why}")
    return fault
