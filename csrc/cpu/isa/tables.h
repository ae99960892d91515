// Constants of math.h. The polynomials come from docs/coefficients.py; lowest coefficient first, and beside
// each its degree, interval and the relative error that it adds to the result.
#pragma once
#include <cstdint>

#include "core/inline.h"
#include "core/kinds.h"

namespace gemmule::cpu::GEMMULE_ISA {

template <class T>
struct Table;

template <>
struct Table<float> {
  static constexpr int mantissa = 23;           // bits of it that are stored
  static constexpr int bias = 127;              // of the exponent
  static constexpr float rounder = 0x1.8p23f;   // x + rounder - rounder is x rounded to an integer
  static constexpr float smallest = 0x1p-126f;  // smallest normal number
  static constexpr float log2_e = 0x1.715476p+0f;
  static constexpr float ln2_high = 0x1.63p-1f,
                         ln2_low = -0x1.bd0106p-13f;      // n ln2_high is exact for |n| < 2^15
  static constexpr float exp_low = -104, exp_high = 89;   // beyond, exp is 0 or infinity
  static constexpr float expm1_low = -18;                 // below, expm1 is -1
  static constexpr std::uint32_t sqrt_half = 0x3f3504f3;  // bits of sqrt(1/2)

  // exp(r) = 1 + r + r^2 q(r); degree 4, |r| <= ln(2) / 2, 1.5e-8
  static constexpr float exp_tail[] = {0.500000006f, 0.166665454f, 0.0416662904f, 0.00836634741f,
                                       0.00139460049f};
  // log(m) = 2 s + s^3 q(s^2), s = (m - 1) / (m + 1); degree 2, s^2 <= 0.0295, 8.3e-10
  static constexpr float log_tail[] = {0.666667741f, 0.399777598f, 0.298668107f};
  // erf(x) = x + x q(x^2); degree 6, x^2 <= 1, 1.2e-9
  static constexpr float erf_near[] = {0.128379166f,   -0.376126258f,    0.112835851f,  -0.0268538120f,
                                       0.00518832778f, -0.000801019448f, 7.85386410e-5f};
  // erf(x) = 1 - exp(-q(x)); degree 6, 1 <= x <= 4, 1.0e-9
  static constexpr float erf_far[] = {0.000353722568f, 1.12704002f,    0.638225701f,    0.103037347f,
                                      -0.0218053072f,  0.00293960437f, -0.000185573695f};
  static constexpr float erf_end = 4;  // beyond, erf rounds to 1
};

template <>
struct Table<double> {
  static constexpr int mantissa = 52;
  static constexpr int bias = 1023;
  static constexpr double rounder = 0x1.8p52;
  static constexpr double smallest = 0x1p-1022;
  static constexpr double log2_e = 0x1.71547652b82fep+0;
  static constexpr double ln2_high = 0x1.62e42feep-1,
                          ln2_low = 0x1.a39ef35793c76p-33;  // exact for |n| < 2^21
  static constexpr double exp_low = -746, exp_high = 710;
  static constexpr double expm1_low = -38;
  static constexpr std::uint64_t sqrt_half = 0x3fe6a09e667f3bcd;

  // exp(r) = 1 + r + r^2 q(r); degree 9, |r| <= ln(2) / 2, 2.0e-17
  static constexpr double exp_tail[] = {0.50000000000000046,   0.16666666666666684,   0.041666666666582060,
                                        0.0083333333333156721, 0.0013888888930171715, 0.00019841269900853520,
                                        2.4801506690326693e-5, 2.7557229770336314e-6, 2.7625545788632089e-7,
                                        2.5113933410473108e-8};
  // log(m) = 2 s + s^3 q(s^2), s = (m - 1) / (m + 1); degree 6, s^2 <= 0.0295, 1.3e-18
  static constexpr double log_tail[] = {0.66666666666667262, 0.39999999999458321, 0.28571428734086591,
                                        0.22222199328574205, 0.18183528703072257, 0.15314890723819649,
                                        0.14788110744629304};
  // erf(x) = x + x q(x^2); degree 11, x^2 <= 1, 7.3e-18
  static constexpr double erf_near[] = {
      0.12837916709551257,   -0.37612638903183520,    0.11283791670944185,    -0.026866170643111502,
      0.0052239776061187118, -0.00085483259293239784, 0.00012055293577135585, -1.4924712305740117e-5,
      1.6447131609245350e-6, -1.6206313997772758e-7,  1.3710981246788567e-8,  -7.7794697812537061e-10};
  // erf(x) = 1 - exp(-q(x)); degree 17, 1 <= x <= 6, 6.6e-18
  static constexpr double erf_far[] = {
      5.1324493272361024e-7,   1.1283739916905936,      0.63664405513315386,    0.10270228986510200,
      -0.018988042461830076,   -0.00041353556550290498, 0.0019189441458238406,  -0.00077304154036915422,
      0.00013655299702791287,  1.9524513445288072e-5,   -2.2533577509510585e-5, 8.5790110917478857e-6,
      -2.1148571824386974e-6,  3.6957617307284101e-7,   -4.5934674996381944e-8, 3.8901501990551206e-9,
      -2.0204216887672679e-10, 4.8653117732816240e-12};
  static constexpr double erf_end = 6;  // beyond, erf rounds to 1
};

}  // namespace gemmule::cpu::GEMMULE_ISA
