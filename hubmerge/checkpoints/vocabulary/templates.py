"""Chat templates that a recipe can name, and the one that most models have. Templates are text; none is rendered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

_CHATML = """\
{%- for message in messages -%}
{{- '<|im_start|>' ~ message['role'] ~ '\\n' ~ message['content'] ~ '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""

_LLAMA3 = """\
{%- for message in messages -%}
{%- if loop.first -%}{{- bos_token -}}{%- endif -%}
{{- '<|start_header_id|>' ~ message['role'] ~ '<|end_header_id|>\\n\\n' ~ message['content'] | trim ~ '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{%- endif -%}
"""

_MISTRAL = """\
{%- set ns = namespace(system='', turn=0) -%}
{{- bos_token -}}
{%- for message in messages -%}
{%- if loop.first and message['role'] == 'system' -%}
{%- set ns.system = message['content'] ~ '\\n\\n' -%}
{%- else -%}
{%- if message['role'] not in ['user', 'assistant'] -%}
{{- raise_exception('expected messages of user and assistant, after at most one of system') -}}
{%- endif -%}
{%- if (message['role'] == 'user') != (ns.turn % 2 == 0) -%}
{{- raise_exception('expected messages of user and assistant in turn, beginning with user') -}}
{%- endif -%}
{%- if message['role'] == 'user' -%}
{{- ' [INST] ' ~ (ns.system if ns.turn == 0 else '') ~ message['content'] ~ ' [/INST]' -}}
{%- else -%}
{{- ' ' ~ message['content'] ~ eos_token -}}
{%- endif -%}
{%- set ns.turn = ns.turn + 1 -%}
{%- endif -%}
{%- endfor -%}
"""

_ALPACA = """\
{%- set ns = namespace(system='') -%}
{%- for message in messages if message['role'] == 'system' -%}
{%- set ns.system = message['content'] | trim -%}
{%- endfor -%}
{{- ns.system ~ '\\n\\n' -}}
{%- set titles = {'user': 'Instruction', 'assistant': 'Response', 'user_context': 'Input'} -%}
{%- for message in messages if message['role'] in titles -%}
{{- '### ' ~ titles[message['role']] ~ ':\\n' ~ message['content'] | trim -}}
{{- '' if loop.last else '\\n\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt and messages[-1]['role'] != 'assistant' -%}
{{- '\\n\\n### Response:\\n' -}}
{%- endif -%}
"""

_EXAONE = """\
{%- for message in messages -%}
{%- if loop.first and message['role'] != 'system' -%}
{{- '[|system|][|endofturn|]\\n' -}}
{%- endif -%}
{{- '[|' ~ message['role'] ~ '|]' ~ message['content'] -}}
{{- '\\n' if message['role'] == 'user' else '[|endofturn|]\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '[|assistant|]' -}}
{%- endif -%}
"""

BUILT_IN = {"alpaca": _ALPACA, "chatml": _CHATML, "exaone": _EXAONE, "llama3": _LLAMA3, "mistral": _MISTRAL}
"""The templates by name."""


def most_common(templates: Iterable[str | None]) -> str | None:
    """Return the template that most models have, of several the first one; None if no model has one."""
    counted = Counter(template.strip() for template in templates if template is not None and template.strip())
    return max(counted, key=counted.__getitem__) if counted else None
