"""Renders notes of the 128 General MIDI instruments into a folder with a manifest, for the recipe audio/notes.

    apt-get install fluid-soundfont-gm
    pip install soundfile soxr && pip install --no-deps tinysoundfont
    python examples/render_notes.py data/notes
    scm-media check audio/notes data.path=data/notes/manifest.jsonl

Without --no-deps, pip wants to build pyaudio, which nothing here uses. Another soundfont with the General MIDI programs
is given with ``--soundfont``.

What is written: ``<family>/<program>-<instrument>/<pitch>-<velocity>.wav``, mono, and ``manifest.jsonl`` with path,
family, program, instrument, pitch (the MIDI number of the key that was struck), velocity (1 to 127), pitched, note
(its name, of instruments that have a pitch), dynamics (a word for the velocity), register (low, middle or high: the
third of the instrument's keys), instrument_register (both, to be held out together) and caption. Each instrument is
played over the range that it has in the world, at velocities drawn from 32 to 127; a note is held for three quarters of
the clip, and its last 20 ms are faded so that nothing clicks. Programs have equally many
notes. General MIDI's sixteen groups are the families, under names of one word: chromatic percussion is "mallet",
synth lead "lead", synth pad "pad", synth effects "texture", percussive "percussion", sound effects "effects".
Every note has its key as the pitch, since that says how the recording was played back; ``pitched`` is false where no
pitch of that name is heard: drums, the sound effects, the orchestra hit. Figures of pitch are of the others.

The soundfont is played at a multiple of the rate, at least 44.1 kHz, and brought down by a steep filter, so that what
it holds above half the rate does not fold back. The notes of a program have one gain, which brings the loudest of them
to a peak of 0.9: soft ones stay soft. Notes whose peak is then below -60 dBFS are left out and counted. The same seed
gives the same samples; a run that was stopped goes on with the next program.

FluidR3 GM is by Frank Wen, under the MIT licence.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rendering import check_settings, write_whole

SOUNDFONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")
"""The path of Debian's package fluid-soundfont-gm."""

NUM_PROGRAMS = 128
PLAYED_RATE = 44_100
LOUDEST_PEAK = 0.9
"""The peak of each program's loudest note, since soundfonts set instruments of one band 30 dB apart."""

VELOCITIES = range(32, 128)
HELD = 0.75
"""The fraction of a recording after which the key is released."""

FADE_SECONDS = 0.02
SILENCE_PEAK = 1e-3

FAMILIES = {
    "piano": "Acoustic Grand 21-108, Bright Acoustic 21-108, Electric Grand 21-108, Honky-tonk 21-108, "
    "Electric Piano 1 28-103, Electric Piano 2 28-103, Harpsichord 29-89, Clavinet 29-88",
    "mallet": "Celesta 60-108, Glockenspiel 72-108, Music Box 60-84, Vibraphone 53-89, "
    "Marimba 48-84, Xylophone 65-96, Tubular Bells 60-77, Dulcimer 55-84",
    "organ": "Drawbar Organ 36-96, Percussive Organ 36-96, Rock Organ 36-96, Church Organ 36-96, "
    "Reed Organ 36-96, Accordion 53-89, Harmonica 60-84, Tango Accordion 53-89",
    "guitar": "Nylon Guitar 40-84, Steel Guitar 40-84, Jazz Guitar 40-86, Clean Guitar 40-86, "
    "Muted Guitar 40-86, Overdriven Guitar 40-86, Distortion Guitar 40-86, Guitar Harmonics 40-86",
    "bass": "Acoustic Bass 28-55, Fingered Bass 28-55, Picked Bass 28-55, Fretless Bass 28-55, "
    "Slap Bass 1 28-55, Slap Bass 2 28-55, Synth Bass 1 28-60, Synth Bass 2 28-60",
    "strings": "Violin 55-96, Viola 48-84, Cello 36-72, Contrabass 28-55, "
    "Tremolo Strings 28-96, Pizzicato Strings 28-96, Harp 23-103, Timpani 36-57",
    "ensemble": "String Ensemble 28-96, Slow Strings 28-96, Synth Strings 1 36-96, Synth Strings 2 36-96, "
    "Choir Aahs 48-79, Voice Oohs 48-79, Synth Voice 48-84, *Orchestra Hit 48-72",
    "brass": "Trumpet 55-86, Trombone 34-75, Tuba 29-55, Muted Trumpet 55-82, "
    "French Horn 41-77, Brass Section 36-96, Synth Brass 1 36-96, Synth Brass 2 36-96",
    "reed": "Soprano Sax 56-87, Alto Sax 49-80, Tenor Sax 42-75, Baritone Sax 37-68, "
    "Oboe 58-91, English Horn 52-81, Bassoon 34-72, Clarinet 50-91",
    "pipe": "Piccolo 74-108, Flute 60-96, Recorder 60-96, Pan Flute 60-96, "
    "Blown Bottle 60-96, Shakuhachi 55-84, Whistle 60-96, Ocarina 60-84",
    "lead": "Square Lead 36-96, Sawtooth Lead 36-96, Calliope Lead 36-96, Chiff Lead 36-96, "
    "Charang Lead 36-96, Voice Lead 36-96, Fifths Lead 36-96, Bass and Lead 36-84",
    "pad": "New Age Pad 36-96, Warm Pad 36-96, Polysynth Pad 36-96, Choir Pad 36-96, "
    "Bowed Pad 36-96, Metallic Pad 36-96, Halo Pad 36-96, Sweep Pad 36-96",
    "texture": "Rain 36-96, Soundtrack 36-96, Crystal 36-96, Atmosphere 36-96, "
    "Brightness 36-96, Goblins 36-96, Echoes 36-96, Sci-Fi 36-96",
    "ethnic": "Sitar 48-77, Banjo 48-84, Shamisen 50-79, Koto 55-84, "
    "Kalimba 48-79, Bagpipe 46-77, Fiddle 55-96, Shanai 48-79",
    "percussion": "Tinkle Bell 72-96, *Agogo 60-84, Steel Drums 52-84, *Woodblock 60-84, "
    "*Taiko 36-60, *Melodic Tom 36-72, *Synth Drum 36-72, *Reverse Cymbal 48-72",
    "effects": "*Fret Noise 48-72, *Breath Noise 48-72, *Seashore 48-72, *Bird Tweet 48-72, "
    "*Telephone 48-72, *Helicopter 48-72, *Applause 48-72, *Gunshot 48-72",
}
"""The eight programs of each family in General MIDI's order, with lowest and highest key; a star: no pitch."""


@dataclass(frozen=True)
class Program:
    """An instrument with its number from 0, its family, its name, its keys, and whether it has a pitch."""

    number: int
    family: str
    name: str
    low: int
    high: int
    pitched: bool

    @property
    def folder(self) -> str:
        """Returns the folder of its notes."""
        return f"{self.family}/{self.number:03d}-{re.sub('[^a-z0-9]+', '-', self.name.lower())}"


def programs() -> list[Program]:
    """Returns the 128 programs in General MIDI's order."""
    found = []
    for family, listed in FAMILIES.items():
        for text in listed.split(", "):
            star, name, low, high = re.fullmatch(r"(\*?)(.+) (\d+)-(\d+)", text).groups()  # type: ignore[union-attr]
            found.append(Program(len(found), family, name, int(low), int(high), not star))
    assert len(found) == NUM_PROGRAMS
    return found


def score(program: Program, num_notes: int, seed: int) -> list[tuple[int, int]]:
    """Returns key and velocity of each note of a program, no pair twice, with the keys as evenly used as possible.

    The velocities of a key lie one in each equal part of the range. Exits where there are not that many pairs.
    """
    keys = range(program.low, program.high + 1)
    if num_notes > len(keys) * len(VELOCITIES):
        sys.exit(f"{program.name} has {len(keys)} keys, so at most {len(keys) * len(VELOCITIES)} different notes")
    generator = np.random.default_rng([seed, program.number])
    takes = Counter(keys[place * len(keys) // num_notes] for place in range(num_notes))
    return [
        (key, int(generator.choice(part)))
        for key, num in sorted(takes.items())
        for part in np.array_split(np.array(VELOCITIES), num)
    ]


class Player:
    """Plays a soundfont note by note, each from silence."""

    def __init__(self, soundfont: Path, rate: int, seconds: float) -> None:
        try:
            import tinysoundfont
        except ImportError as error:
            sys.exit(f"{error.name} is not installed: pip install --no-deps tinysoundfont")
        self.rate, self.num_samples = rate, round(rate * seconds)
        self.oversampling = math.ceil(PLAYED_RATE / rate)
        self._played_rate = rate * self.oversampling
        self._synth = tinysoundfont.Synth(samplerate=self._played_rate)
        self._font = self._synth.sfload(str(soundfont))

    def play(self, program: int, notes: Sequence[tuple[int, int]]) -> np.ndarray:
        """Returns the notes ``(N, T)`` of a program in float32."""
        self._synth.program_select(0, self._font, 0, program)
        return np.stack([self._faded(self._down(self._play(key, velocity))) for key, velocity in notes])

    def _play(self, key: int, velocity: int) -> np.ndarray:
        total = self.num_samples * self.oversampling
        held = round(total * HELD)
        self._synth.noteon(0, key, velocity)
        down = self._generate(held)
        self._synth.noteoff(0, key)
        up = self._generate(total - held)
        # A voice that is cut off rings for some milliseconds more; what is left of it would sound in the next note.
        self._synth.sounds_off(0)
        for _ in range(100):
            if not self._generate(self._played_rate // 10).any():
                return np.concatenate([down, up])
        raise AssertionError(f"key {key} does not end after all sounds were switched off")

    def _generate(self, num: int) -> np.ndarray:
        stereo = np.frombuffer(self._synth.generate(num), dtype=np.float32)
        return stereo.reshape(num, 2).mean(1)

    def _down(self, played: np.ndarray) -> np.ndarray:
        if self.oversampling == 1:
            return played
        import soxr

        return soxr.resample(played, self._played_rate, self.rate, quality="VHQ")

    def _faded(self, note: np.ndarray) -> np.ndarray:
        num = round(self.rate * FADE_SECONDS)
        note = note[: self.num_samples].copy()
        note[-num:] *= 0.5 + 0.5 * np.cos(np.linspace(0, np.pi, num, dtype=np.float32))
        return note


def render(folder: Path, player: Player, num_notes: int, seed: int, suffix: str) -> Counter[str]:
    """Writes every program that is not there yet, then the manifest; returns the notes left out, by reason."""
    parts = folder / ".parts"
    parts.mkdir(parents=True, exist_ok=True)
    every = programs()
    for program in every:
        part = parts / f"{program.number:03d}.json"
        if not part.is_file():
            rows, left_out = render_program(folder, player, program, num_notes, seed, suffix)
            write_whole(part, json.dumps({"rows": rows, "left_out": left_out}))
        print(f"\r{program.number + 1} of {len(every)} programs", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    found = [json.loads((parts / f"{program.number:03d}.json").read_text("utf-8")) for program in every]
    lines = (json.dumps(row) + "\n" for part in found for row in part["rows"])
    write_whole(folder / "manifest.jsonl", "".join(lines))
    return sum((Counter(part["left_out"]) for part in found), Counter())


def render_program(
    folder: Path, player: Player, program: Program, num_notes: int, seed: int, suffix: str
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Writes the notes of one program; returns the manifest's rows, and the numbers of notes left out by reason."""
    import soundfile

    notes = score(program, num_notes, seed)
    played = player.play(program.number, notes)
    played *= LOUDEST_PEAK / max(np.abs(played).max(), 1e-9)
    (folder / program.folder).mkdir(parents=True, exist_ok=True)
    rows, left_out = [], Counter()
    for (key, velocity), samples in zip(notes, played, strict=True):
        if np.abs(samples).max() < SILENCE_PEAK:
            left_out[f"peak below {20 * math.log10(SILENCE_PEAK):.0f} dBFS"] += 1
            continue
        path = f"{program.folder}/{key:03d}-{velocity:03d}{suffix}"
        soundfile.write(folder / path, samples, player.rate, subtype="PCM_16")
        rows.append(
            {
                "path": path,
                "family": program.family,
                "program": program.number,
                "instrument": program.name,
                "pitch": key,
                "velocity": velocity,
                "pitched": program.pitched,
                **({"note": note_name(key)} if program.pitched else {}),
                "dynamics": dynamics(velocity),
                "register": register(program, key),
                "instrument_register": f"{program.name}, {register(program, key)}",
                "caption": caption(program, key, velocity),
            }
        )
    return rows, left_out


def caption(program: Program, key: int, velocity: int) -> str:
    """Returns a description of the sound: "steel guitar, C#4, loud"."""
    return ", ".join([program.name.lower(), *([note_name(key)] if program.pitched else []), dynamics(velocity)])


def note_name(key: int) -> str:
    """Returns the name of a MIDI key: 60 is C4."""
    return f"{('C', 'C#', 'D', 'D#', 'E', 'F', 'F#', 'G', 'G#', 'A', 'A#', 'B')[key % 12]}{key // 12 - 1}"


def dynamics(velocity: int) -> str:
    """Returns a word for a MIDI velocity."""
    return "soft" if velocity < 64 else "loud" if velocity >= 96 else "medium"


def register(program: Program, key: int) -> str:
    """Returns a word for the third of a program's keys that a key lies in."""
    return ("low", "middle", "high")[(key - program.low) * 3 // (program.high - program.low + 1)]


def main(arguments: list[str] | None = None) -> None:
    """Parses the command line, renders, and says what was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to")
    parser.add_argument("--soundfont", type=Path, default=SOUNDFONT, help=f"default: {SOUNDFONT}")
    parser.add_argument(
        "--notes", type=int, default=256, metavar="N", help="of each program; default: 256, 32,768 in all"
    )
    parser.add_argument("--rate", type=int, default=22_050, metavar="HZ", help="default: 22050")
    parser.add_argument("--seconds", type=float, default=1.0, metavar="S", help="of a clip; default: 1")
    parser.add_argument("--format", choices=("wav", "flac"), default="wav", help="16 bits; default: wav, read fastest")
    parser.add_argument("--seed", type=int, default=0, metavar="I", help="draws the velocities; default: 0")
    options = parser.parse_args(arguments)
    for name, low in (("notes", 1), ("rate", 8_000), ("seconds", 0.1), ("seed", 0)):
        if getattr(options, name) < low:
            parser.error(f"--{name} must be at least {low}, got {getattr(options, name)}")
    if not options.soundfont.is_file():
        sys.exit(
            f"{options.soundfont}: no such file; Debian: apt-get install fluid-soundfont-gm; elsewhere give a General "
            "MIDI soundfont (.sf2) with --soundfont"
        )
    settings = {
        "soundfont": hashlib.sha256(options.soundfont.read_bytes()).hexdigest(),
        **{name: getattr(options, name) for name in ("notes", "rate", "seconds", "format", "seed")},
    }
    check_settings(options.folder, settings)
    player = Player(options.soundfont, options.rate, options.seconds)
    left_out = render(options.folder, player, options.notes, options.seed, f".{options.format}")
    rows = [json.loads(line) for line in (options.folder / "manifest.jsonl").open(encoding="utf-8")]
    for family, count in Counter(row["family"] for row in rows).items():
        print(f"{count:6d} {family}")
    for reason, count in left_out.items():
        print(f"{count:6d} left out: {reason}")
    print(f"{len(rows)} notes, listed in {options.folder / 'manifest.jsonl'}")


if __name__ == "__main__":
    main()
