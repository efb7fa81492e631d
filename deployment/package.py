"""Packages a stage: one template and its two archives, ready for CloudFormation."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from deployment import parameters as parameter_files
from deployment import requirements
from deployment import template as templates
from deployment.archives import pack, pack_once, unpack
from deployment.errors import DeploymentError
from deployment.materials import bill, missing
from deployment.parameters import Parameters
from deployment.project import FUNCTIONS, Stage
from deployment.template import Template


@dataclass(frozen=True)
class Package:
    """What CloudFormation is given. In `template`, the code's places are paths beside it, until it is uploaded."""

    folder: Path
    template: Template

    @property
    def release(self) -> str:
        """What the functions say of themselves: a name of this very code, template and settings."""
        found: str = self.template["Outputs"]["Release"]["Value"]
        return found

    @property
    def template_file(self) -> Path:
        return self.folder / "template.yaml"

    @property
    def parameters_file(self) -> Path:
        """For `xargs -0 aws cloudformation deploy … --parameter-overrides`."""
        return self.folder / "parameters"

    @property
    def bill(self) -> Path:
        return self.folder / "bom.json"

    @property
    def function(self) -> Path:
        return self.folder / "function.zip"

    @property
    def layer(self) -> Path:
        return self.folder / "layer.zip"


def package(stage: Stage, folder: Path, say: Callable[[str], None]) -> Package:
    """Makes `folder` anew, for the stage's parameters where it has some already. Raises DeploymentError and leaves the
    old one when something does not fit.
    """
    if stage.is_native:
        raise DeploymentError(
            f"Stage '{stage.name}' was prepared for `chalice deploy`: its settings in .chalice/config.json name "
            "resources of their own. Package another stage; moving one is described in docs/deploy.md."
        )
    stage.check_functions()
    if found := list(requirements.problems(stage.project)):
        raise DeploymentError("\n".join(found))
    python = templates.this_python()
    say(f"Packaging stage '{stage.name}' for Python {python[0]}.{python[1]} …")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".packaging-") as scratch:
        made = Package(Path(scratch) / "made", {})
        made.folder.mkdir()
        by_chalice = _run_chalice(stage, Path(scratch))
        wheels = by_chalice / "layer-deployment.zip"
        _refuse_what_has_no_wheel(stage, wheels)
        kept = stage.project / ".chalice" / "deployments"  # where Chalice keeps its own
        function_bytes, layer_bytes = _make_archives(by_chalice, Path(scratch), made, kept)
        template = templates.completed(
            yaml.safe_load((by_chalice / "sam.yaml").read_text("utf-8")),
            stage=stage.name,
            processor_timeout=stage.timeout_of("processor"),
            python=python,
        )
        _place_code(template, f"./{made.function.name}", f"./{made.layer.name}")
        parameters: Parameters = {}
        if stage.parameters_file.exists():
            parameters = parameter_files.read(stage.parameters_file)
            parameter_files.check(parameters, template)
            made.parameters_file.write_text(parameter_files.as_arguments(parameters, template), "utf-8")
        templates.say_who_may_send(template, parameters.get("AllowedIpRanges", ""))
        release = _release(made, template, parameters)
        templates.name_release(template, release)
        made.bill.write_text(bill(stage.name, release, wheels, (made.function, made.layer)) + "\n", "utf-8")
        made.template_file.write_text(templates.dump(template), "utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        made.folder.rename(folder)
    say(f"  function.zip   {function_bytes / 1000:8.1f} KB   your code, with bytecode")
    say(f"  layer.zip      {layer_bytes / 1000:8.1f} KB   what it stands on, with bytecode")
    say(f"  template.yaml              release {template['Outputs']['Release']['Value']}")
    say("  bom.json                   what is in it (CycloneDX)")
    if parameters:
        say("  parameters                 of infra/parameters, for the AWS CLI")
    return Package(folder, template)


def _refuse_what_has_no_wheel(stage: Stage, layer: Path) -> None:
    if found := missing((stage.project / "requirements.txt").read_text("utf-8"), layer):
        major, minor = templates.this_python()
        raise DeploymentError(
            f"No wheel that Lambda can run, for Python {major}.{minor} on {stage.architecture}: {', '.join(found)}. "
            "Another Python may have one (make venv PYTHON=python3.13), or another version of it; or put it into the "
            "folder vendor/ (.venv/bin/pip install --target vendor …)."
        )


def _make_archives(by_chalice: Path, scratch: Path, made: Package, kept: Path) -> tuple[int, int]:
    """The team's own code is the function; what it stands on, Chalice and Postern, is the layer. Sizes in bytes."""
    function, layer = scratch / "function", scratch / "layer"
    unpack(by_chalice / "deployment.zip", function)
    unpack(by_chalice / "layer-deployment.zip", layer)
    (site_packages,) = layer.glob("python/lib/python*/site-packages")
    (function / "chalice").rename(site_packages / "chalice")
    (site_packages / "chalicelib").mkdir()
    (function / "chalicelib" / "postern").rename(site_packages / "chalicelib" / "postern")
    return (
        pack(function, made.function, mounted_at="/var/task"),
        pack_once(layer, made.layer, mounted_at="/opt", kept_in=kept),
    )


def _release(made: Package, template: Template, parameters: Mapping[str, str]) -> str:
    parts = [made.function.read_bytes(), made.layer.read_bytes(), templates.dump(template).encode()]
    parts.append(json.dumps(parameters, sort_keys=True).encode())
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:12]


def _place_code(template: Template, function: str, layer: str) -> None:
    for name, _ in FUNCTIONS.values():
        template["Resources"][name]["Properties"]["CodeUri"] = function
    template["Resources"]["ManagedLayer"]["Properties"]["ContentUri"] = layer


def with_uploaded_code(package: Package, bucket: str, function_key: str, layer_key: str) -> str:
    """The template's text as CloudFormation reads it, its code in the bucket."""
    template: Template = json.loads(json.dumps(package.template))
    _place_code(template, f"s3://{bucket}/{function_key}", f"s3://{bucket}/{layer_key}")
    return json.dumps(template, separators=(",", ":"))


def _run_chalice(stage: Stage, scratch: Path) -> Path:
    """Chalice's own package, with our template merged into it."""
    infra = stage.project / "infra"
    additions = scratch / "additions.yaml"
    files = [infra / name for name in templates.PACKAGED]
    additions.write_text(templates.dump(templates.load(*files)), "utf-8")
    out = scratch / "chalice"
    done = subprocess.run(
        [Path(sys.executable).parent / "chalice", "--project-dir", str(stage.project), "package",
         "--stage", stage.name, "--template-format", "yaml", "--merge-template", str(additions), str(out)],
        # Chalice asks for a region, and puts none into a template.
        env={"AWS_DEFAULT_REGION": "us-east-1", **os.environ},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    if done.returncode or not (out / "sam.yaml").exists():
        raise DeploymentError(f"Chalice cannot package it:\n{done.stdout[-3000:]}{done.stderr[-3000:]}".rstrip())
    return out
