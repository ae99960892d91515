"""Train, score, save and load a classifier of handwritten digits."""

import tempfile
from pathlib import Path

import gemmule as gm

X, y = gm.datasets.digits()  # (1797, 64) pixels in 0..1, and labels
X_train, X_test, y_train, y_test = gm.datasets.split(X, y, 0.2, rng=0)

net = gm.Network([gm.Dense(64, 128, "relu"), gm.Dropout(0.1), gm.Dense(128, 10)], rng=0)
print(net.summary())

history = net.fit(
    X_train,
    y_train,
    loss="cross_entropy",
    optimizer=gm.Adam(2e-3),
    epochs=30,
    batch_size=32,
    validation_data=(X_test, y_test),
    metrics=["accuracy"],
    progress=True,
)
print(f"training loss {history['loss'][0]:.3f} at first, {history['loss'][-1]:.3f} at last")
print(f"held-out accuracy {net.evaluate(X_test, y_test)['accuracy']:.1%}")

probabilities = net.predict_proba(X_test[:5])
for label, row in zip(y_test[:5], probabilities, strict=True):
    print(f"a {label}: taken for {row.argmax()} with probability {row.max():.3f}")

# One safetensors file holds the architecture, the weights and the loss.
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "digits.safetensors"
    net.save(path)
    again = gm.load(path)
    assert (again.predict(X_test) == net.predict(X_test)).all()
    print(f"saved and loaded: {path.stat().st_size} bytes")
