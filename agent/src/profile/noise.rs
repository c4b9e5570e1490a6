//! Chance: how likely a difference is by chance alone, and how many of many such differences may be believed. Numbers in,
//! numbers out.

/// Share of false findings among all findings that is put up with.
pub const FALSE_FINDINGS: f64 = 0.05;

/// Chance of a difference of at least `z` standard errors, either way, when there is none.
pub fn chance(z: f64) -> f64 {
    libm::erfc(z.abs() / std::f64::consts::SQRT_2)
}

/// What `t`, with a standard error that was itself estimated from `freedom` + 1 values, is worth in standard errors
/// (Wallace 1959, within 0.02 of the exact value from 3 degrees of freedom on).
pub fn t_to_z(t: f64, freedom: f64) -> f64 {
    let z = (8.0 * freedom + 1.0) / (8.0 * freedom + 3.0) * (freedom * (t * t / freedom).ln_1p()).sqrt();
    z.copysign(t)
}

/// Which of many findings may be believed: the greatest set of which at most [`FALSE_FINDINGS`] are expected to be
/// false (Benjamini and Hochberg 1995). Where nothing has changed at all, one in twenty comparisons names anything.
#[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 functions")]
pub fn believed(chances: &[f64]) -> Vec<bool> {
    let mut sorted: Vec<f64> = chances.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let all = sorted.len() as f64;
    let limit = (1..)
        .zip(&sorted)
        .filter(|(rank, chance)| **chance <= FALSE_FINDINGS * f64::from(*rank) / all)
        .map(|(_, chance)| *chance)
        .last();
    chances.iter().map(|chance| limit.is_some_and(|limit| *chance <= limit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chances_agree_with_the_tables() {
        assert!((chance(1.959_964) - 0.05).abs() < 1e-6);
        assert!((chance(-4.0) - 6.334e-5).abs() < 1e-8);
        // Student's t, two-sided 5 %: 3.182 with 3, 2.228 with 10 degrees of freedom.
        assert!((t_to_z(3.182, 3.0) - 1.96).abs() < 0.02);
        assert!((t_to_z(-2.228, 10.0) + 1.96).abs() < 0.01);
    }

    #[test]
    fn what_chance_alone_explains_is_not_believed() {
        assert_eq!(believed(&[0.001, 0.9, 0.02, 0.6]), [true, false, true, false]);
        // One in a hundred at 4 % is what a hundred comparisons give by chance.
        let mut chances = vec![0.5; 99];
        chances.push(0.04);
        assert!(believed(&chances).iter().all(|yes| !yes));
        assert!(believed(&[]).is_empty());
    }
}
