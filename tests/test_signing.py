"""Signed bundles: what a key signed is taken, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import run_score

from batchscore.cli import main
from batchscore.errors import ModelError, UsageError
from batchscore.model.bundle import open_bundle, seal, sign_bundle
from batchscore.model.bundle_facts import FACTS
from batchscore.model.loading import KeptModels
from batchscore.model.signing import PASSPHRASE, SIGNATURE, claimed_signer, signing_key, trusted_keys

pytest.importorskip("cryptography", reason="the extra sign is not installed")
PASSWORD = "correct horse"


def make_key(path: Path, passphrase: str = "") -> Path:
    """A key pair as operators make it, or in the same format where there is no ssh-keygen."""
    from cryptography.hazmat.primitives import serialization as kinds
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    hidden = kinds.BestAvailableEncryption(passphrase.encode()) if passphrase else kinds.NoEncryption()
    path.write_bytes(key.private_bytes(kinds.Encoding.PEM, kinds.PrivateFormat.OpenSSH, hidden))
    path.chmod(0o600)
    public = key.public_key().public_bytes(kinds.Encoding.OpenSSH, kinds.PublicFormat.OpenSSH)
    path.with_suffix(".pub").write_bytes(public + b" somebody@here\n")
    return path


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "other"):
        make_key(folder / name)
    return folder


@pytest.fixture
def bundle(tiny_bundle: Path, keys: Path, tmp_path: Path) -> Path:
    """A signed bundle."""
    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    sign_bundle(folder, signing_key(keys / "ours"))
    return folder


def reseal(folder: Path) -> None:
    """What whoever can write there can do: make all hashes fit again."""
    signature = (folder / SIGNATURE).read_bytes()
    facts = json.loads((folder / FACTS).read_bytes())
    seal(folder, {k: v for k, v in facts.items() if k not in ("sha256", "files", "format_version")})
    (folder / SIGNATURE).write_bytes(signature)


def other_weights(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    facts = json.loads((folder / FACTS).read_bytes())
    facts["canaries"]["texts"][0] = "another text"
    signature = (folder / SIGNATURE).read_bytes()
    seal(folder, {k: v for k, v in facts.items() if k not in ("sha256", "files", "format_version")})
    (folder / SIGNATURE).write_bytes(signature)


def damage(folder: Path) -> None:
    lines = (folder / SIGNATURE).read_text().splitlines()
    lines[-2] = lines[-2][:-8] + ("AAAAAAA=" if not lines[-2].endswith("AAAAAAA=") else "BBBBBBB=")
    (folder / SIGNATURE).write_text("\n".join(lines) + "\n")


def added_and_resealed(folder: Path) -> None:
    (folder / "vocab.txt").write_text("x")
    reseal(folder)


def pipe_instead(folder: Path) -> None:
    (folder / SIGNATURE).unlink()
    os.mkfifo(folder / SIGNATURE)


SPOIL: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no signature": (lambda folder: (folder / SIGNATURE).unlink(), "is not signed"),
    "weights and canaries, sealed again": (other_weights, "was changed after SHA256:"),
    "an added file, sealed again": (
        added_and_resealed,
        "was changed after SHA256:",
    ),
    "an added file": (lambda folder: (folder / "vocab.txt").write_text("x"), "does not belong to it"),
    "a removed file": (lambda folder: (folder / "README.md").unlink(), "README.md is missing"),
    "a changed file": (lambda folder: (folder / "README.md").write_text("other"), "README.md was changed"),
    "a damaged signature": (damage, "was changed after|no signature of ours"),
    "an empty signature": (lambda folder: (folder / SIGNATURE).write_bytes(b""), "no signature of ours"),
    "half a signature": (
        lambda folder: (folder / SIGNATURE).write_bytes((folder / SIGNATURE).read_bytes()[:99]),
        "no signature of ours",
    ),
    "bytes": (lambda folder: (folder / SIGNATURE).write_bytes(bytes(range(256))), "no signature of ours"),
    "no bundle": (lambda folder: (folder / FACTS).unlink(), "is no bundle of batchscore"),
    "a pipe": (
        pipe_instead,
        "no signature of ours: it is no regular file",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), SPOIL.values(), ids=SPOIL)
def test_what_was_not_signed_as_it_is_is_not_taken(
    spoil: Callable[[Path], Any], message: str, bundle: Path, keys: Path
) -> None:
    spoil(bundle)
    with pytest.raises(ModelError, match=message):
        open_bundle(str(bundle), trust=[keys / "ours.pub"])


def test_a_bundle_of_a_trusted_key_is_taken_and_says_whose(
    bundle: Path, keys: Path, tiny_bundle: Path
) -> None:
    both = [keys / "other.pub", keys / "ours.pub"]
    opened = open_bundle(str(bundle), trust=both)
    assert opened.signed_by == trusted_keys([keys / "ours.pub"])[0].id == claimed_signer(bundle)
    assert (
        opened.fingerprint == open_bundle(str(tiny_bundle)).fingerprint
    )  # so a new signature is no new model
    assert open_bundle(str(bundle)).signed_by is None
    with pytest.raises(ModelError, match="which --trust does not name"):
        open_bundle(str(bundle), trust=[keys / "other.pub"])


def test_the_signature_of_another_bundle_does_not_count(
    bundle: Path, keys: Path, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    other = shutil.copytree(bundle, tmp_path / "other")
    (other / "README.md").write_text("another card")
    reseal(other)
    sign_bundle(other, signing_key(keys / "ours"))
    shutil.copy(other / SIGNATURE, bundle / SIGNATURE)
    with pytest.raises(ModelError, match="or the signature is of another bundle"):
        open_bundle(str(bundle), trust=[keys / "ours.pub"])


def test_a_signature_for_something_else_does_not_count(
    bundle: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchscore.model.signing.NAMESPACE", "git")
    sign_bundle(bundle, signing_key(keys / "ours"))
    monkeypatch.undo()
    with pytest.raises(ModelError, match="it was made for b'git'"):
        open_bundle(str(bundle), trust=[keys / "ours.pub"])


def test_keys_may_be_many_in_a_file_and_what_is_not_understood_is_refused(
    bundle: Path, keys: Path, tmp_path: Path
) -> None:
    ours, other = ((keys / f"{name}.pub").read_text() for name in ("ours", "other"))
    file = tmp_path / "trusted"
    file.write_text(f"# since 2026\n\n{other}publisher@here {ours}")
    assert open_bundle(str(bundle), trust=[file]).signed_by
    for content, message in {
        "": "holds no key",
        f'publisher namespaces="git" {ours}': "line 1: it is not",
        "ssh-rsa AAAAB3NzaC1yc2E= x": "Only Ed25519",
        "ssh-ed25519": "line 1",
        "ssh-ed25519 AAAA": "cut short",
        (keys / "ours").read_text(): "line 1",
        f"@revoked {ours}": "line 1: it begins with an option",
        f"@cert-authority {ours}": "begins with an option",
        f'cert-authority,namespaces="git" {ours}': "begins with an option",
        f'namespaces="git" {ours}': "begins with an option",
        f"no-pty,restrict {ours}": "begins with an option",
        f"restrict {ours}": "begins with an option",
        f"No-X11-Forwarding {ours}": "begins with an option",
    }.items():
        file.write_text(content)
        with pytest.raises(ModelError, match=message):
            trusted_keys([file])
    with pytest.raises(ModelError, match="cannot be read"):
        trusted_keys([tmp_path / "none"])


def test_a_key_with_a_passphrase_takes_it_from_the_environment(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key = make_key(tmp_path / "hidden", PASSWORD)
    key.chmod(0o644)
    monkeypatch.setenv(PASSPHRASE, PASSWORD)
    sign_bundle(bundle, signing_key(key))
    assert "can be read by others" in caplog.text
    assert open_bundle(str(bundle), trust=[key.with_suffix(".pub")]).signed_by
    monkeypatch.setenv(PASSPHRASE, "wrong")
    with pytest.raises(ModelError, match="cannot be loaded as a private key"):
        signing_key(key)
    monkeypatch.delenv(PASSPHRASE)
    monkeypatch.setattr("batchscore.model.signing._TERMINAL", str(tmp_path / "no-terminal"))
    with pytest.raises(UsageError, match=f"Set {PASSPHRASE}"):
        signing_key(key)
    with pytest.raises(ModelError, match="cannot be loaded as a private key"):
        signing_key(key.with_suffix(".pub"))


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="there is no ssh-keygen here")
def test_openssh_makes_and_checks_the_same_signatures(bundle: Path, tmp_path: Path, keys: Path) -> None:
    signers = tmp_path / "signers"
    signers.write_text(f"us {(keys / 'ours.pub').read_text()}")
    verify: list[str] = [
        "ssh-keygen",
        "-Y",
        "verify",
        "-f",
        str(signers),
        "-I",
        "us",
        "-n",
        "batchscore",
        "-s",
        str(bundle / SIGNATURE),
    ]
    with (bundle / FACTS).open("rb") as file:
        done = subprocess.run(verify, stdin=file, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    (bundle / SIGNATURE).unlink()
    made = subprocess.run(
        ["ssh-keygen", "-Y", "sign", "-n", "batchscore", "-f", str(keys / "ours"), str(bundle / FACTS)],
        capture_output=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    assert open_bundle(str(bundle), trust=[signers]).signed_by


def test_the_commands_sign_check_and_say_so(bundle: Path, keys: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    (bundle / SIGNATURE).unlink()
    trust = ["--trust", str(keys / "ours.pub")]

    def call(*args: Any) -> Any:
        return runner.invoke(main, [*map(str, args)])

    assert call("verify", bundle, *trust).exit_code == 78
    assert (signed := call("sign", bundle, "--key", keys / "ours")).exit_code == 0, signed.output
    whose = trusted_keys([keys / "ours.pub"])[0].id
    assert whose in signed.stdout
    assert f"signed by {whose}" in call("verify", bundle, *trust).stdout
    assert "not checked" in call("inspect", bundle).stdout
    assert json.loads(call("inspect", bundle, "--json", *trust).stdout)["signed_by"] == whose
    assert call("verify", bundle, "--trust", keys / "other.pub").exit_code == 78
    (tmp_path / "plain.csv").write_text("text\na good film\n")
    assert call("inspect", tmp_path / "plain.csv", *trust).exit_code == 2


def test_a_run_says_who_signed_its_model(bundle: Path, keys: Path, tmp_path: Path, quick_runs: None) -> None:
    inputs = tmp_path / "in.csv"
    inputs.write_text("text\na good film\n")
    output = tmp_path / "run"
    run_score(inputs, bundle, output, trust=(keys / "ours.pub",))
    whose = trusted_keys([keys / "ours.pub"])[0].id
    assert json.loads((output / "run.json").read_bytes())["model"]["signed_by"] == whose
    assert whose in (output / "report.html").read_text()
    with pytest.raises(ModelError, match="does not name"):  # though it is finished
        run_score(inputs, bundle, output, trust=(keys / "other.pub",))


def test_a_kept_model_is_looked_at_again_when_the_trusted_keys_change(
    bundle: Path, keys: Path, tmp_path: Path
) -> None:
    trusted = Path(shutil.copy(keys / "ours.pub", tmp_path / "trusted"))
    models = KeptModels()
    assert models.open(str(bundle), None, [trusted]).signed_by
    shutil.copy(keys / "other.pub", trusted)
    with pytest.raises(ModelError, match="does not name"):
        models.open(str(bundle), None, [trusted])


def test_an_adopted_bundle_is_signed_if_asked_for(tiny_model: Path, keys: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "adopted"
    adopt = ["adopt", str(tiny_model), "--output", str(bundle), "--sign", str(keys / "ours"), "-q"]
    done = CliRunner().invoke(main, adopt)
    assert done.exit_code == 0, done.output
    assert open_bundle(str(bundle), trust=[keys / "ours.pub"]).signed_by


def test_an_inbox_takes_only_what_was_signed(bundle: Path, keys: Path, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "in.csv").write_text("text\na good film\n")
    given = [inbox, "--model", bundle, "--output", tmp_path / "runs", "--settle", "0", "-q", "--trust"]

    def call(key: str) -> int:
        return CliRunner().invoke(main, ["inbox", *map(str, given), str(keys / key)]).exit_code

    assert call("other.pub") == 78
    assert (inbox / "in.csv").exists()  # what is wrong is the model
    assert call("ours.pub") == 0
    assert (inbox / "done" / "in.csv").exists()
