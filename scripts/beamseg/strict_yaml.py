"""YAML as every layer of the configuration is read: nothing is built but plain values, no key is given twice."""

from __future__ import annotations

from typing import Any

import yaml
from yaml.constructor import ConstructorError

# With libyaml, where PyYAML was built with it: a tenth of the time, half a second of every job's start.
SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class StrictLoader(SafeLoader):
    """Safe YAML in which no key is given twice; keys are text, as they are in JSON."""

    def mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        """A mapping; of keys given twice YAML itself would take the last."""
        names = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ConstructorError(None, None, "a key that is no word", key.start_mark)
            if key.value in names:
                raise ConstructorError(None, None, f"key {key.value!r} given twice", key.start_mark)
            names.add(key.value)
        self.flatten_mapping(node)
        return {str(self.construct_object(key)): self.construct_object(value, deep=True) for key, value in node.value}


StrictLoader.add_constructor("tag:yaml.org,2002:map", StrictLoader.mapping)


def parse_yaml(text: str) -> Any:
    """The value of a YAML text; yaml.YAMLError for what is none, and for a key given twice."""
    loader = StrictLoader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()
