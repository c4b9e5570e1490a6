//! Whether two groups differ at all: values in, the chance of a difference as large by mere luck out. Exact over all
//! divisions, because five repetitions have only 252 of them; it assumes nothing about how latencies are distributed.

/// Divisions beyond which there would be too many to try: 12 values a side.
const LARGEST: usize = 24;

/// Two-sided p of the difference of the means of `a` and `b` over all divisions of their values into groups of the same
/// sizes; `None` for an empty group, or for too many values.
#[expect(clippy::cast_precision_loss, reason = "at most 24 values")]
pub(crate) fn permutation_p(a: &[f64], b: &[f64]) -> Option<f64> {
    let all: Vec<f64> = a.iter().chain(b).copied().collect();
    if a.is_empty() || b.is_empty() || all.len() > LARGEST {
        return None;
    }
    let total: f64 = all.iter().sum();
    let apart = |sum: f64| (sum / a.len() as f64 - (total - sum) / b.len() as f64).abs();
    let seen = apart(a.iter().sum());
    let (mut divisions, mut as_large) = (0_u64, 0_u64);
    for mask in (0_u32..1 << all.len()).filter(|mask| mask.count_ones() as usize == a.len()) {
        let sum: f64 = (0..all.len()).filter(|i| mask >> i & 1 == 1).map(|i| all[i]).sum();
        divisions += 1;
        // A hair of tolerance: the same values added in another order.
        as_large += u64::from(apart(sum) >= seen * (1.0 - 1e-9));
    }
    Some(as_large as f64 / divisions as f64)
}

/// The p values corrected for how many were looked at, after Holm: in the order given.
#[expect(clippy::cast_precision_loss, reason = "a handful of tests")]
pub(crate) fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|i, j| p[*i].total_cmp(&p[*j]));
    let (mut corrected, mut largest) = (vec![1.0; p.len()], 0.0_f64);
    for (rank, i) in order.iter().enumerate() {
        largest = largest.max(p[*i] * (p.len() - rank) as f64).min(1.0);
        corrected[*i] = largest;
    }
    corrected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_do_not_overlap_differ_and_groups_that_do_may_not() {
        let low = [1.0, 2.0, 3.0, 4.0, 5.0];
        let high = [11.0, 12.0, 13.0, 14.0, 15.0];
        let p = permutation_p(&low, &high).unwrap();
        assert!((p - 2.0 / 252.0).abs() < 1e-12, "the most extreme of 252 divisions, on either side: {p}");
        assert!(permutation_p(&[1.0, 3.0, 5.0, 7.0, 9.0], &[2.0, 4.0, 6.0, 8.0, 10.0]).unwrap() > 0.5);
    }

    #[test]
    fn luck_is_called_significant_about_as_often_as_it_should_be() {
        let mut random = fastrand::Rng::with_seed(5);
        let mut draw = || (0..5).map(|_| random.f64()).collect::<Vec<f64>>();
        let called = (0..400).filter(|_| permutation_p(&draw(), &draw()).unwrap() <= 0.05).count();
        assert!((8..=34).contains(&called), "{called} of 400 at 5 %");
    }

    #[test]
    fn holm_makes_each_test_pay_for_the_others() {
        assert_eq!(holm(&[0.01, 0.04, 0.03, 0.5]), [0.04, 0.09, 0.09, 0.5]);
    }

    #[test]
    fn nothing_is_claimed_about_an_empty_group() {
        assert_eq!(permutation_p(&[], &[1.0]), None);
    }
}
