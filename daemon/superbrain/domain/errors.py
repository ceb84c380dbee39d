"""Everything that can be wrong with a bundle or with the store that keeps it: one error tree.

Every error carries a `reason`: a stable code in capitals that programs may compare, tests assert
and the journal records. The sentence is for people and may change. docs/bundle-format.md lists
the codes.

    SuperbrainError
    └── BundleError
        ├── SignatureRefused   nobody trusted vouches for these bytes
        ├── TrustUnusable      what this host trusts cannot be read or is empty: nothing is judged
        ├── UpdateRefused      a trust update breaks a rule of the format or of the chain
        ├── ManifestError      the signed manifest contradicts the format or itself
        ├── ArchiveError       the file is not the archive that the manifest describes
        ├── Incomplete         the file is shorter than announced: perhaps it is still being copied
        ├── SequenceRefused    an older release than the newest one accepted (anti-rollback)
        ├── DateRefused        expired, or made in the future
        ├── TargetMismatch     this host is not what the bundle asks for
        ├── TensorFileError    a golden file does not hold the tensor that the manifest declares
        ├── RecipeError        an author's folder cannot become a bundle
        └── StoreError         the host's own copy or disk is at fault, not the bundle

Incomplete, TrustUnusable and StoreError are no judgement on the bundle: the same file may be fine
later.
"""

from __future__ import annotations

from superbrain.wire.errors import SuperbrainError


class BundleError(SuperbrainError):
    """Root of this tree: a sentence, a stable `reason` code and, where there is one, the mend."""

    def __init__(self, message: str, *, reason: str, mend: str = "") -> None:
        super().__init__(message, mend=mend)
        self.reason = reason

    @property
    def code(self) -> str:
        """The reason, under the name by which every error of superbrain gives its code."""
        return self.reason


class SignatureRefused(BundleError):
    """The envelope is malformed, unsigned, signed by strangers, or signer or bundle is revoked."""


class TrustUnusable(BundleError):
    """The host's trust is at fault, not the bundle: no key, too few, or a folder that is unsafe."""


class UpdateRefused(BundleError):
    """A trust update is malformed, replayed, or not signed by the keys before and after it."""


class ManifestError(BundleError):
    """The manifest breaks a rule of the format."""


class ArchiveError(BundleError):
    """The bytes of the file are not what format and manifest say they must be."""


class Incomplete(BundleError):
    """The file ends before its announced end: `have_bytes` of `need_bytes` are there.

    `need_bytes` is what is needed for the next step, so it may grow once the manifest is read.
    """

    def __init__(self, message: str, *, have_bytes: int, need_bytes: int) -> None:
        super().__init__(
            message,
            reason="INCOMPLETE",
            mend="Wait until the file is copied, or copy it again",
        )
        self.have_bytes = have_bytes
        self.need_bytes = need_bytes


class SequenceRefused(BundleError):
    """The sequence number is not above the highest one accepted for this name."""


class DateRefused(BundleError):
    """By this host's clock the bundle has expired or comes from the future."""


class TargetMismatch(BundleError):
    """The host lacks what the bundle's `targets` ask for."""


class TensorFileError(BundleError):
    """A file's content is not a tensor of the declared datatype and shape."""


class RecipeError(BundleError):
    """The author's folder or its bundle.toml is wrong."""


class StoreError(BundleError):
    """The store cannot take, find or confirm a bundle: disk full, file lost, file changed."""


def shown(value: object) -> str:
    """Show a foreign value in a sentence: quoted, escaped, and short whatever it is."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
