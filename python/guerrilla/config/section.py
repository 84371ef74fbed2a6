"""What all sections of a config have in common."""

from collections.abc import Iterable
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict

from guerrilla.config.masking import mask_value


class Section(BaseModel):
    """A frozen part of a config whose `repr` hides secrets.

    A section made by hand takes its keys as they are spelt here and raises pydantic's
    `ValidationError` (a `ValueError`); `load` and `loads` fold the case of keys and raise
    `ConfigError`.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_by_name=True,
        validate_by_alias=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """The fields for `repr` and `str`, secrets masked."""
        for name, value in super().__repr_args__():
            yield name, mask_value(name or "", value)


def key_of(section: type[Section], field: str) -> str:
    """How a config spells a field: `import` for `import_`, else its name."""
    alias = section.model_fields[field].validation_alias
    return alias if isinstance(alias, str) else field


def section_in(annotation: object) -> type[Section] | None:
    """The section that a field holds: itself, in a list, in a mapping, or optionally."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    found = (section_in(argument) for argument in get_args(annotation))
    return next((section for section in found if section is not None), None)
