"""Tables: Fisher's irises from a CSV file, by the command line and in Python; then columns of several kinds
with gaps. The same works with pandas and polars data frames."""

import tempfile
from pathlib import Path

import numpy as np

import gemmule as gm
from gemmule.cli import main

iris = str(Path(__file__).with_name("iris.csv"))

with tempfile.TemporaryDirectory() as folder:
    model = f"{folder}/iris.safetensors"

    # As one would type it: gemmule train iris.csv --target species --hidden 16 --out iris.safetensors
    assert main(["train", iris, "--target", "species", "--hidden", "16", "--out", model]) == 0
    assert main(["evaluate", model, iris]) == 0  # the rows held out in training
    assert main(["predict", model, iris, "--limit", "3", "--proba"]) == 0
    assert main(["info", model]) == 0

    # The model keeps how its columns are prepared, so a table is all that it needs.
    net = gm.load(model)
    flower = {"petal_width": [1.8], "petal_length": [5.5], "sepal_width": [3.0], "sepal_length": [6.5]}
    print("a large one is", net.preprocessing["classes"][net.predict(flower).argmax()])

# Flats by area, town and floor. The rent follows from them; some cells are missing.
rng = np.random.default_rng(0)
count = 600
area = rng.uniform(20, 120, count)
town = rng.choice(["Bern", "Oslo", "Rome"], count)
rent = 400 + 10 * area + np.select([town == "Bern", town == "Oslo"], [300.0, 200.0], 0.0)
flats = {
    "area": np.where(rng.random(count) < 0.03, np.nan, area),
    "town": [None if gap else str(name) for gap, name in zip(rng.random(count) < 0.03, town, strict=True)],
    "floor": rng.integers(0, 6, count),
}

# `fit` learns the preparation of a table with text by itself. Numbers to fit are best near 0 and 1.
net = gm.Network([gm.Dense(None, 32, "relu"), gm.Dense(32, 1)], rng=0)
net.fit(flats, (rent - 1000) / 300, loss="mse", optimizer=gm.Adam(5e-3), epochs=60, batch_size=32)
asked = {"town": ["Bern", "Rome", None], "area": [50, 50, 50], "floor": [1, 1, 1]}  # in any order
for name, price in zip(asked["town"], 1000 + 300 * net.predict(asked)[:, 0], strict=True):
    print(f"50 square metres in {name or 'a town not told'}: {price:.0f}")

# The same by hand, with the inputs in view.
encoder = gm.tables.TableEncoder(drop=["floor"]).fit(flats)
print(encoder.describe())
print("inputs:", ", ".join(encoder.inputs))
X = encoder.transform(flats)
print("a row:", np.round(X[0], 2))
