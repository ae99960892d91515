"""The polynomials of csrc/cpu/isa/tables.h: `python docs/coefficients.py` prints them. Needs mpmath.

Each is the minimax polynomial p of a function f under a weight w, the one that makes max |w (f - p)| over an
interval least, found by Remez' exchange at 60 digits. The weight turns an error of p into the relative error
of the result, so the figure printed beside a table is what the approximation adds to rounding.
"""

import mpmath as mp

mp.mp.dps = 60


def remez(f, w, low, high, degree, grid=1200):
    """Coefficients, lowest first, and max |w (f - p)|, for p of `degree` on [low, high]."""
    points = [(low + high) / 2 - (high - low) / 2 * mp.cos(mp.pi * i / grid) for i in range(grid + 1)]
    values = [(x, f(x), w(x)) for x in points]
    size = degree + 2
    chosen = [round(i * grid / (size - 1)) for i in range(size)]
    for _ in range(30):
        system, right = mp.matrix(size, size), mp.matrix(size, 1)
        for row, i in enumerate(chosen):
            x, y, weight = values[i]
            for k in range(degree + 1):
                system[row, k] = x**k
            system[row, degree + 1] = (-1) ** row / weight
            right[row] = y
        solution = mp.lu_solve(system, right)
        coefficients = list(solution)[: degree + 1]
        errors = [weight * (y - mp.polyval(coefficients[::-1], x)) for x, y, weight in values]
        worst = max(abs(e) for e in errors)
        if worst < abs(solution[degree + 1]) * mp.mpf("1.001"):
            break
        chosen = alternation(errors, size)
    return coefficients, worst


def alternation(errors, size):
    """`size` indices at which the error is extreme and changes sign from one to the next."""
    runs = []
    for i, error in enumerate(errors):
        if runs and (error > 0) == (errors[runs[-1]] > 0):
            if abs(error) > abs(errors[runs[-1]]):
                runs[-1] = i
        else:
            runs.append(i)
    while len(runs) > size:
        runs.pop(0 if abs(errors[runs[0]]) < abs(errors[runs[-1]]) else -1)
    return runs


def exp_tail(r):
    """q in exp(r) = 1 + r + r^2 q(r)."""
    return mp.mpf(1) / 2 if abs(r) < 1e-20 else (mp.expm1(r) - r) / r**2


def log_tail(z):
    """q in log(m) = 2 s + s^3 q(s^2), s = (m - 1) / (m + 1), at z = s^2."""
    return mp.mpf(2) / 3 if z == 0 else (2 * mp.atanh(mp.sqrt(z)) / mp.sqrt(z) - 2) / z


def erf_near(z):
    """q in erf(x) = x + x q(x^2), at z = x^2."""
    return 2 / mp.sqrt(mp.pi) - 1 if z == 0 else mp.erf(mp.sqrt(z)) / mp.sqrt(z) - 1


def erf_far(x):
    """q in erf(x) = 1 - exp(-q(x))."""
    return -mp.log(mp.erfc(x))


HALF_LN2 = mp.log(2) / 2 * mp.mpf("1.0001")  # rounding may carry r a little beyond
LOG_END = ((mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)) ** 2 * mp.mpf("1.0001")
ONE = mp.mpf(1)
ERF_END = {"float": mp.mpf(4), "double": mp.mpf(6)}
# name, f, w, low, high, degrees. The weights of exp and log are kept off zero, where any p will do.
TABLES = [
    ("exp_tail", exp_tail, lambda r: abs(r) + 0.02, -HALF_LN2, HALF_LN2, {"float": 4, "double": 9}),
    ("log_tail", log_tail, lambda z: z / 2 + 1e-4, mp.mpf(0), LOG_END, {"float": 2, "double": 6}),
    ("erf_near", erf_near, lambda z: 1 / (1 + erf_near(z)), mp.mpf(0), ONE, {"float": 6, "double": 11}),
    ("erf_far", erf_far, mp.erfc, ONE, ERF_END, {"float": 6, "double": 17}),
]

if __name__ == "__main__":
    for kind, digits in ("float", 9), ("double", 17):
        for name, f, w, low, high, degrees in TABLES:
            top = high[kind] if isinstance(high, dict) else high
            coefficients, error = remez(f, w, low, top, degrees[kind])
            interval = f"[{mp.nstr(low, 5)}, {mp.nstr(top, 5)}]"
            print(f"{kind} {name}: degree {degrees[kind]}, {interval}, {mp.nstr(error, 2)}")
            print("  {" + ", ".join(mp.nstr(c, digits, strip_zeros=False) for c in coefficients) + "}")
