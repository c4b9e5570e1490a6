//! A logarithm made of basic IEEE operations only: the same bits on every machine.
//!
//! The one of the standard library is the platform's own and differs in its last digits between platforms; a recording
//! must replay to the same decisions everywhere.

/// Natural logarithm of a positive, finite, normal number, to 12 digits; 0 for anything else.
pub fn ln(x: f64) -> f64 {
    if !x.is_normal() || x <= 0.0 {
        return 0.0;
    }
    let bits = x.to_bits();
    let exponent = i32::try_from((bits >> 52) & 0x7ff).unwrap_or(0) - 1_023;
    let mantissa = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000);
    let (mantissa, exponent) =
        if mantissa > std::f64::consts::SQRT_2 { (mantissa / 2.0, exponent + 1) } else { (mantissa, exponent) };
    // ln m = 2 artanh s with s = (m − 1)/(m + 1), |s| ≤ 0.172: the term after the last is below 1e-13.
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let mut series = 0.0;
    for odd in [15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        series = series * square + 1.0 / odd;
    }
    f64::from(exponent) * std::f64::consts::LN_2 + 2.0 * s * series
}

/// The exponential function, to 12 digits within ±700; 0 below and infinite above, as the range of the numbers ends there.
pub fn exp(x: f64) -> f64 {
    if !x.is_finite() || x.abs() > 700.0 {
        return if x > 0.0 { f64::INFINITY } else { 0.0 };
    }
    let k = (x / std::f64::consts::LN_2).round();
    let rest = x - k * std::f64::consts::LN_2;
    // |rest| <= 0.347: the term after the last is below 1e-16.
    let series = (1..=14).rev().fold(1.0, |sum, n| 1.0 + rest / f64::from(n) * sum);
    #[expect(clippy::cast_possible_truncation, reason = "at most 1,010 either way")]
    let exponent = u64::try_from(1_023 + k as i64).unwrap_or(0);
    series * f64::from_bits(exponent << 52)
}

#[cfg(test)]
mod tests {
    use super::{exp, ln};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_agrees_with_the_platform(x in 1e-12_f64..1e18) {
            prop_assert!((ln(x) - x.ln()).abs() < 1e-11 * (1.0 + x.ln().abs()), "ln {x}");
        }
    }

    proptest! {
        #[test]
        fn the_exponential_agrees_with_the_platform(x in -600.0_f64..600.0) {
            prop_assert!((exp(x) / x.exp() - 1.0).abs() < 1e-11, "exp {x}");
        }
    }

    #[test]
    fn what_has_no_logarithm_yields_zero() {
        for x in [0.0, -1.0, f64::NAN, f64::INFINITY, f64::MIN_POSITIVE / 2.0] {
            assert!(ln(x) == 0.0);
        }
    }
}
