"""Chat templates that no program should render."""

LOOPS = "{% for a in range(99999) %}" * 4 + "x" + "{% endfor %}" * 4
"""Nested loops: hours of rendering."""

BOMBS = [
    LOOPS,
    "{{ 'a' * 10**10 }}",
    "{{ ('a' * 10**6) * 10**6 }}",
    "{{ range(10**12) | list }}",
    "{{ 'x' | center(10**12) }}",
    "{% set a = namespace(v='a') %}{% for i in range(99) %}{% set a.v = a.v ~ a.v %}{% endfor %}{{ a.v }}",
    "{{ 9**9**9 }}",
    "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "{{ cycler.__init__.__globals__.os.system('true') }}",
]
"""Chat templates that never end, take all memory, or reach for the system."""
