"""Opens built engines and checks that they are whole and of this export, library and GPU."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dipgo.common.errors import DipgoError
from dipgo.common.hashes import sha256_of
from dipgo.common.links import check_within
from dipgo.common.typed_json import decode_json, read_file
from dipgo.engines.export_directory import ExportDirectory
from dipgo.engines.launches import Launch
from dipgo.engines.shape_profiles import ShapeRange
from dipgo.ir.manifest.engines import (
    ENGINES_FILE,
    ENGINES_FOLDER,
    ENGINES_FORMAT,
    ENGINES_VERSION,
    EngineManifest,
    EngineRecord,
)
from dipgo.ir.manifest.records import MANIFEST_FILE


@dataclass(frozen=True)
class EngineDirectory:
    """The engines of one target within an export directory."""

    path: Path
    manifest: EngineManifest
    remedy: str

    @classmethod
    def open(
        cls, export: ExportDirectory, target: str, names: Iterable[str], remedy: str
    ) -> EngineDirectory:
        """Reads the manifest of an export's engines.

        Args:
            export: The export directory.
            target: The engines' target.
            names: Names of engines that must be there.
            remedy: What makes these engines, for errors.

        Raises:
            DipgoError: The engines are not of this very export, or an engine of `names` is missing.
        """
        path = export.path / ENGINES_FOLDER / target
        check_within(path, export.path)
        if not path.is_dir():
            raise DipgoError(str(path), found="no engines", expected="built ones", remedy=remedy)
        file = path / ENGINES_FILE
        check_within(file, export.path)
        content = read_file(file, expected="the manifest of built engines")
        manifest = decode_json(content, EngineManifest, name=str(file), remedy=remedy)
        directory = cls(path, manifest, remedy)
        directory._check_head(file, target)
        plan = export.path / MANIFEST_FILE
        if manifest.plan_sha256 != sha256_of(plan):
            raise directory._mismatch("engines of another export", f"those of {plan} as it is now")
        for name in names:
            if name not in manifest.engines:
                raise directory._mismatch(f"no engine {name}", "one for each graph of the export")
        return directory

    def _check_head(self, file: Path, target: str) -> None:
        head = (self.manifest.format, self.manifest.version, self.manifest.target)
        expected = (ENGINES_FORMAT, ENGINES_VERSION, target)
        if head != expected:
            raise DipgoError(
                str(file),
                found="format {!r}, version {}, target {}".format(*head),
                expected="format {!r}, version {}, target {}".format(*expected),
                remedy=self.remedy,
            )

    def check_library(self, title: str, version: str) -> None:
        """Checks the version of the library that runs the engines.

        Raises:
            DipgoError: The engines were built with another version.
        """
        if version != self.manifest.library_version:
            raise self._mismatch(
                f"engines of {title} {self.manifest.library_version}", f"{title} {version}"
            )

    def check_gpu(self, name: str, capability: str) -> None:
        """Checks the GPU on which the engines are to run.

        Raises:
            DipgoError: The engines were built for other GPUs.
        """
        built = self.manifest
        if built.gpu not in (None, name) or capability not in built.compute_capabilities:
            made_for = built.gpu or f"compute capability {', '.join(built.compute_capabilities)}"
            raise self._mismatch(
                f"engines for {made_for}", f"{name}, compute capability {capability}"
            )

    def check_shapes(self, launches: Iterable[Launch]) -> None:
        """Checks that the engines take the shapes of all launches.

        Raises:
            DipgoError: An engine's profile does not hold a shape that a launch needs.
        """
        for launch in launches:
            profile = self.manifest.engines[launch.engine].profile
            for binding in launch.inputs:
                record = profile.get(binding.tensor)
                if record is None:
                    continue
                sizes = ShapeRange(tuple(record.min), tuple(record.opt), tuple(record.max))
                if not sizes.holds(binding.type.shape):
                    raise self._mismatch(
                        f"engine {launch.engine}, whose input {binding.tensor} takes "
                        f"{record.min} to {record.max}",
                        f"{list(binding.type.shape)}, as the plan has it",
                    )

    def nbytes(self, names: Iterable[str]) -> int:
        """Returns the bytes of these engines: on the device their weights take little more."""
        return sum(self.manifest.engines[name].nbytes for name in names)

    def read(self, name: str, check_hash: bool = True, most: int | None = None) -> bytes:
        """Returns a serialised engine.

        Args:
            name: The engine's name in the manifest.
            check_hash: Whether to compare its hash with the manifest's.
            most: The largest size in bytes that any such engine has, if there is one.

        Raises:
            DipgoError: The engine is not the one that was built, or is larger.
        """
        record: EngineRecord = self.manifest.engines[name]
        path = self.path / record.file
        check_within(path, self.path.parent.parent)
        if not path.is_file():
            raise self._mismatch(f"no file {record.file}", f"the engine {name}")
        size = path.stat().st_size
        if size != record.nbytes:
            raise DipgoError(
                str(path),
                found=f"{size} bytes",
                expected=f"{record.nbytes} bytes",
                remedy=f"the engine is damaged: {self.remedy}",
            )
        content = read_file(path, expected=f"the engine {name}", most=most)
        if check_hash and hashlib.sha256(content).hexdigest() != record.sha256:
            raise DipgoError(
                str(path),
                found="other bytes than were built",
                expected=f"sha256 {record.sha256[:12]}…",
                remedy=f"the engine is damaged: {self.remedy}",
            )
        return content

    def _mismatch(self, found: str, expected: str) -> DipgoError:
        return DipgoError(str(self.path), found=found, expected=expected, remedy=self.remedy)
