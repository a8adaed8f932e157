"""Chat templates as models come with them, for tests: their Jinja, and the special tokens that they write.

Each is what the `chat_template` of the named model says (its tools left out where it has them).
"""

from __future__ import annotations

#: Meta-Llama-3-8B-Instruct: literals with one token at each end, `trim`, and a `set` that is added to.
LLAMA_3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim "
    "+ '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
#: Qwen2.5-Instruct: ChatML, with a system message of its own and white space control.
QWEN_2_5 = """\
{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant") %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
#: zephyr-7b-beta: roles that are no special tokens, an end token by variable, and lines that blocks leave.
ZEPHYR = """\
{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""
#: Mistral-7B-Instruct-v0.1: no system message, and roles that must take turns.
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token + ' ' }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
TEMPLATES = {"llama-3": LLAMA_3, "qwen-2.5": QWEN_2_5, "zephyr": ZEPHYR, "mistral": MISTRAL}

#: The same with blocks around what an assistant says, as people add them to train.
GENERATION = {
    "llama-3": LLAMA_3.replace(
        "{{ content }}",
        "{% if message['role'] == 'assistant' %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
        "{% generation %}{{ message['content'] | trim + '<|eot_id|>' }}{% endgeneration %}"
        "{% else %}{{ content }}{% endif %}",
    ),
    "qwen-2.5": QWEN_2_5.replace(
        "        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}\n",
        "        {{- '<|im_start|>' + message.role + '\\n' }}\n"
        "        {%- if message.role == 'assistant' %}\n"
        "            {%- generation %}{{- message.content + '<|im_end|>' }}{%- endgeneration %}\n"
        "        {%- else %}{{- message.content + '<|im_end|>' }}{%- endif %}\n        {{- '\\n' }}\n",
    ),
    "zephyr": ZEPHYR.replace(
        "{{ '<|assistant|>\\n'  + message['content'] + eos_token }}",
        "{{ '<|assistant|>\\n' }}{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}\n",
    ),
    "mistral": MISTRAL.replace(
        "{{ message['content'] + eos_token + ' ' }}",
        "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}{{ ' ' }}",
    ),
}
SPECIAL = (
    "<s>", "</s>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>",
    "<|end_header_id|>", "<|eot_id|>", "[INST]", "[/INST]",
)  # fmt: skip
VARIABLES = {"bos_token": "<s>", "eos_token": "</s>"}
