"""Settings and names of a draw → a scene in which nothing is in the way of anything by accident."""

from llava_video.errors import ConfigError
from llava_video.world.actor import Actor, Stage, push
from llava_video.world.backdrop import MUTED, PATTERNS, Backdrop
from llava_video.world.clearance import is_apart, is_beside
from llava_video.world.dice import Dice, number_of
from llava_video.world.render import sign_size
from llava_video.world.scene import Event, Scene, Sign, Thing, Wall
from llava_video.world.script import Part, draw_parts
from llava_video.world.settings import WorldSettings
from llava_video.world.shapes import REACH
from llava_video.world.vocabulary import DIRECTIONS, SIGN_WORDS, SIZES

# A story is given up only after many casts: the crowded ones would become rare otherwise.
_STORIES, _CASTS, _TRIES_A_PLACE = 80, 8, 25
_MARGIN = 0.015  # from an object to the edge, units
_FIRST_S, _LAST_S = 1.0, 2.5  # nothing begins before and after, from either end of the clip
_BURST_S = 4.0
_MOST_PLATE = 0.25  # of the frame's height


def compose(settings: WorldSettings, *names: object) -> Scene:
    """Make the scene of a draw.

    Args:
        settings: the world it is drawn from.
        names: what tells it from all other scenes: a split, a seed, a number.

    Raises:
        ConfigError: the objects find no room (frames of an odd shape alone).
    """
    dice = Dice(*names)
    height_px, width_px = dice.pick(settings.sizes_px)
    rate_hz, wanted_s = dice.pick(settings.rates_hz), dice.pick(settings.lengths_s)
    num_frames = max(2, round(wanted_s * rate_hz))
    unit_px = min(height_px, width_px)
    shake_px = 0
    if dice.chance(settings.shake_share):
        shake_px = dice.whole(1, max(1, int(settings.shake * unit_px)))
    sign = None
    if dice.chance(settings.sign_share):
        sign = _draw_sign(dice, height_px, width_px, shake_px)
    stage = _stage(height_px, width_px, shake_px, sign, num_frames / rate_hz)
    things, events, wall = _play(dice, settings, stage)
    return Scene(
        name="/".join(str(name) for name in names),
        height_px=height_px,
        width_px=width_px,
        rate_hz=rate_hz,
        num_frames=num_frames,
        things=tuple(things),
        events=tuple(sorted(events, key=_in_order)),
        wall=wall,
        sign=sign,
        backdrop=_draw_backdrop(dice, settings, *names),
        shake_px=shake_px,
        noise=dice.whole(0, settings.noise),
        crf=dice.pick(settings.crfs),
    )


def _in_order(event: Event) -> tuple[float, int, int]:
    """Sort by start; of a collision the hit comes first, then the stop, then the way on."""
    rank = {"collide": 0, "stop": 1}.get(event.kind, 2)
    return event.start_s, rank, event.thing


def _draw_sign(dice: Dice, height_px: int, width_px: int, shake_px: int) -> Sign | None:
    """Draw a sign; a frame so small that its objects would find no room beside one has none."""
    text, scale = dice.pick(SIGN_WORDS), max(1, min(height_px, width_px) // 48)
    plate_height_px, plate_width_px = sign_size(text, scale)
    if plate_height_px > _MOST_PLATE * height_px:
        return None
    edge = 1 + shake_px
    left_px = dice.whole(edge, width_px - plate_width_px - edge)
    is_up = dice.chance(0.5)
    return Sign(text, left_px, edge if is_up else height_px - plate_height_px - edge, scale)


def _stage(
    height_px: int, width_px: int, shake_px: int, sign: Sign | None, length_s: float
) -> Stage:
    unit_px = min(height_px, width_px)
    width, height, shake = width_px / unit_px, height_px / unit_px, shake_px / unit_px
    edge = shake + _MARGIN
    top, bottom = edge, height - edge
    if sign is not None:
        plate_px, _ = sign_size(sign.text, sign.scale)
        if sign.top_px < height_px / 2:
            top = (sign.top_px + plate_px) / unit_px + edge
        else:
            bottom = sign.top_px / unit_px - edge
    closed = "" if sign is None else "top" if sign.top_px < height_px / 2 else "bottom"
    return Stage(edge, top, width - edge, bottom, width, height, shake, length_s, closed)


def _draw_backdrop(dice: Dice, settings: WorldSettings, *names: object) -> Backdrop:
    kind, palette = dice.pick(settings.backdrops), settings.palette
    colour, second = dice.shuffled(MUTED[palette])[:2]
    pattern = ""
    if kind == "textured":
        pattern = dice.pick(PATTERNS[palette])
    elif kind == "gradient":
        pattern = dice.pick(("across", "down", "aslant"))
    step = dice.real(0.02, 0.05) if kind == "noisy" else dice.real(0.06, 0.16)
    return Backdrop(kind, colour, second, pattern, step, number_of(*names, "grain"))


def _play(
    dice: Dice, settings: WorldSettings, stage: Stage
) -> tuple[list[Thing], list[Event], Wall | None]:
    num_things = dice.whole(settings.min_objects, settings.max_objects)
    mood = dice.real(0, 1)
    is_still = mood < settings.still_share or settings.max_acts == 0
    is_quiet = not is_still and mood < settings.still_share + settings.quiet_share
    for tried in range(_STORIES):
        # After many misses fewer acts are tried: the number of objects stays as it was drawn.
        most = max(1, settings.max_acts - tried // 12)
        starts_s = [] if is_still else _draw_starts(dice, stage.length_s, most, is_quiet=is_quiet)
        parts = draw_parts(dice, num_things, starts_s, stage.length_s, stage.closed)
        casts = (_cast(dice, parts, stage) for _ in range(_CASTS))
        actors = next((cast for cast in casts if cast is not None), None)
        if actors is not None and (is_still or any(actor.events for actor in actors)):
            jitter = [tuple(dice.whole(-9, 9) for _ in range(3)) for _ in actors]
            things = [
                actor.thing((tint[0], tint[1], tint[2]))
                for actor, tint in zip(actors, jitter, strict=True)
            ]
            events = [event for actor in actors for event in actor.events]
            return things, events, next((a.wall for a in actors if a.wall), None)
    raise ConfigError(
        f"{num_things} objects find no room in a frame of {stage.width:.2f} x {stage.height:.2f}.",
        "give fewer objects.",
    )


def _draw_starts(dice: Dice, length_s: float, most: int, *, is_quiet: bool) -> list[float]:
    """Draw when acts begin: whole halves of a second, a second or more apart."""
    first, last = round(_FIRST_S * 2), int((length_s - _LAST_S) * 2)
    if is_quiet:
        begin = dice.whole(first, max(first, last - int(_BURST_S * 2)))
        first, last, most = begin, min(last, begin + int(_BURST_S * 2)), 2
    most = max(1, min(most, (last - first) // 3 + 1))
    wanted = dice.whole(min(2, most), most)
    chosen: list[int] = []
    for half in dice.shuffled(range(first, last + 1))[: 4 * wanted]:
        if len(chosen) < wanted and all(abs(half - other) >= 2 for other in chosen):
            chosen.append(half)
    return [half / 2 for half in sorted(chosen)]


def _cast(dice: Dice, parts: list[Part], stage: Stage) -> list[Actor] | None:
    """Give every part a place and let it play; None where somebody finds none."""
    done: dict[int, Actor] = {}
    order = sorted(range(len(parts)), key=lambda idx: -len(parts[idx].acts))
    for idx in order:
        if idx in done:
            continue
        for _ in range(_TRIES_A_PLACE):
            group = _try(dice, idx, parts, stage)
            if group is not None and _is_free([*done.values()], group):
                done.update({actor.idx: actor for actor in group})
                break
        else:
            return None
    return [done[idx] for idx in range(len(parts))]


def _try(dice: Dice, idx: int, parts: list[Part], stage: Stage) -> list[Actor] | None:
    """Let one part play from a drawn place, with the one it runs into; None without room."""
    part = parts[idx]
    if part.victim_of is not None:
        idx, part = part.victim_of, parts[part.victim_of]
    hit = next((k for k, other in enumerate(parts) if other.victim_of == idx), None)
    actor = _placed(dice, idx, part, stage, None if hit is None else parts[hit])
    if actor is None:
        return None
    group = [actor]
    for act in part.acts:
        if act.kind == "collide" and hit is not None:
            victim = Actor(hit, parts[hit].shape, parts[hit].colour, parts[hit].size, 0.0, 0.0)
            if not push(actor, victim, act, stage):
                return None
            group.append(victim)
        elif not actor.play(act, stage):
            return None
    return group


def _placed(dice: Dice, idx: int, part: Part, stage: Stage, victim: Part | None) -> Actor | None:
    """Put an object where its moves, taken together, stay in the frame; None without room."""
    radius = SIZES[part.size]
    side, up, down = (reach * radius for reach in REACH[part.shape])
    low_x, high_x, low_y, high_y = 0.0, 0.0, 0.0, 0.0
    x = y = 0.0
    for act in part.acts:
        if act.kind in ("move", "collide"):
            dx, dy = act.way()
            x, y = x + dx, y + dy
            low_x, high_x = min(low_x, x), max(high_x, x)
            low_y, high_y = min(low_y, y), max(high_y, y)
        if act.kind == "collide" and victim is not None:
            # Whoever is struck goes as far again, from about a radius of each away.
            between = radius + SIZES[victim.size]
            ahead = DIRECTIONS[act.direction]
            far_x, far_y = x + dx + ahead[0] * between, y + dy + ahead[1] * between
            low_x, high_x = min(low_x, far_x), max(high_x, far_x)
            low_y, high_y = min(low_y, far_y), max(high_y, far_y)
    left, right = stage.left + side - low_x, stage.right - side - high_x
    top, bottom = stage.top + up - low_y, stage.bottom - down - high_y
    if left > right or top > bottom:
        return None
    x, y = dice.real(left, right), dice.real(top, bottom)
    return Actor(idx, part.shape, part.colour, part.size, x, y)


def _is_free(others: list[Actor], group: list[Actor]) -> bool:
    """Say whether nobody new comes too near anybody, or behind another's wall."""
    things = {id(actor): actor.thing((0, 0, 0)) for actor in (*others, *group)}
    for actor in group:
        for other in others:
            if not is_apart(things[id(actor)], things[id(other)]):
                return False
    everybody = [*others, *group]
    walls = [(actor, actor.wall) for actor in everybody if actor.wall is not None]
    return all(
        is_beside(things[id(other)], wall)
        for owner, wall in walls
        for other in everybody
        if other is not owner
    )
