"""From a seed to its noise, in plain Python: the specification of ``docs/seeds.md`` as a program.

It needs only the standard library. The tests compare it with the service, bit for bit.
"""

import math
import struct

MASK = 2**64 - 1
CENTRE = (
    (
        2.5090809287301226727e3,
        3.3430575583588128105e4,
        6.7265770927008700853e4,
        4.5921953931549871457e4,
        1.3731693765509461125e4,
        1.9715909503065514427e3,
        1.3314166789178437745e2,
        3.3871328727963666080e0,
    ),
    (
        5.2264952788528545610e3,
        2.8729085735721942674e4,
        3.9307895800092710610e4,
        2.1213794301586595867e4,
        5.3941960214247511077e3,
        6.8718700749205790830e2,
        4.2313330701600911252e1,
        1.0,
    ),
)
TAIL = (
    (
        7.74545014278341407640e-4,
        2.27238449892691845833e-2,
        2.41780725177450611770e-1,
        1.27045825245236838258e0,
        3.64784832476320460504e0,
        5.76949722146069140550e0,
        4.63033784615654529590e0,
        1.42343711074968357734e0,
    ),
    (
        1.05075007164441684324e-9,
        5.47593808499534494600e-4,
        1.51986665636164571966e-2,
        1.48103976427480074590e-1,
        6.89767334985100004550e-1,
        1.67638483018380384940e0,
        2.05319162663775882187e0,
        1.0,
    ),
)
FAR_TAIL = (
    (
        2.01033439929228813265e-7,
        2.71155556874348757815e-5,
        1.24266094738807843860e-3,
        2.65321895265761230930e-2,
        2.96560571828504891230e-1,
        1.78482653991729133580e0,
        5.46378491116411436990e0,
        6.65790464350110377720e0,
    ),
    (
        2.04426310338993978564e-15,
        1.42151175831644588870e-7,
        1.84631831751005468180e-5,
        7.86869131145613259100e-4,
        1.48753612908506148525e-2,
        1.36929880922735805310e-1,
        5.99832206555887937690e-1,
        1.0,
    ),
)


def philox4x64(counter: list[int], key: list[int]) -> list[int]:
    a, b, c, d = counter
    k0, k1 = key
    for _ in range(10):
        low, high = a * 0xD2E7470EE14C6C93, c * 0xCA5A826395121157
        a, b, c, d = (high >> 64) ^ b ^ k0, high & MASK, (low >> 64) ^ d ^ k1, low & MASK
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & MASK, (k1 + 0xBB67AE8584CAA73B) & MASK
    return [a, b, c, d]


def horner(coefficients: tuple[float, ...], x: float) -> float:
    value = coefficients[0]
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value


def log(x: float) -> float:
    m, e = math.frexp(x)
    if m < 0.7071067811865476:
        m, e = m * 2, e - 1
    s = (m - 1) / (m + 1)
    return e * 0.6931471805599453 + 2 * s * horner(tuple(1 / (2 * i + 1) for i in range(11, -1, -1)), s * s)


def normal(word: int) -> float:
    q = (((word >> 11) - 2**52) + 0.5) * 2.0**-53
    if abs(q) <= 0.425:
        x = 0.180625 - q * q
        return q * (horner(CENTRE[0], x) / horner(CENTRE[1], x))
    r = math.sqrt(-log(0.5 - abs(q)))
    (numerator, denominator), x = (TAIL, r - 1.6) if r <= 5 else (FAR_TAIL, r - 5.0)
    return math.copysign(horner(numerator, x) / horner(denominator, x), q)


def noise(seed: int) -> list[float]:
    words = [word for i in range(25) for word in philox4x64([i + 1, 0, 0, 0], [seed, 0])]
    return [struct.unpack("f", struct.pack("f", normal(word)))[0] for word in words]
