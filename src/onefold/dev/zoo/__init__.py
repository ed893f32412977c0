"""Every real model against the runtime it was made for, on real data: the table of the docs.

    python -m onefold.dev.zoo [--only TEXT] [--json FILE] [--markdown docs/models.md]

`records/*.toml` say what each model eats and how its labelled data are scored; a model without a
record gets random inputs. `data.py` holds the data sets, `sounds.py` the streams of sound,
`scores.py` the measures of accuracy, `judge.py` compares, `memory.py` looks at the arena,
`page.py` writes the table.
"""
