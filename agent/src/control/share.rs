//! Fairness: a budget of CPU time and what several pipelines use of it in, a share for each out. None is starved.
//!
//! Max-min fairness by filling up: nobody gets more than he can use while somebody else has less than he could, so that a
//! small pipeline keeps what it needs beside a big one, and what the small ones leave is divided among the big ones alike.

/// What a pipeline may use beyond what it uses now: room to grow before the shares are next divided.
const ROOM: f64 = 1.25;
/// Share of an even division that is everybody's, whatever he uses: an idle pipeline may wake up within a tick.
const FLOOR: f64 = 0.1;

/// Divides `budget` cores by what each uses now; `None` uses nothing that is known, and gets an even share.
///
/// The shares add up to the budget at most, but for the floor of the idle ones.
#[expect(clippy::cast_precision_loss, reason = "at most some thousand pipelines")]
pub fn divide(budget: f64, used: &[Option<f64>]) -> Vec<f64> {
    if used.is_empty() {
        return Vec::new();
    }
    let even = budget.max(0.0) / used.len() as f64;
    let wants: Vec<f64> = used
        .iter()
        .map(|cores| cores.filter(|c| c.is_finite()).map_or(even, |c| (c * ROOM).max(FLOOR * even)))
        .collect();
    let mut by_size: Vec<usize> = (0..wants.len()).collect();
    by_size.sort_by(|a, b| wants[*a].total_cmp(&wants[*b]));
    let (mut left, mut shares) = (budget.max(0.0), vec![0.0; wants.len()]);
    for (nth, index) in by_size.iter().enumerate() {
        let fair = left / (wants.len() - nth) as f64;
        shares[*index] = wants[*index].min(fair);
        left -= shares[*index];
    }
    // What nobody wants stays everybody's: a cap is for want, not for plenty.
    let spare = left.max(0.0) / wants.len() as f64;
    shares.iter().map(|share| share + spare).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_small_pipeline_keeps_what_it_needs_beside_two_big_ones() {
        let shares = divide(1.0, &[Some(0.05), Some(2.0), Some(0.9)]);
        assert!((shares[0] - 0.0625).abs() < 1e-9, "{shares:?}");
        assert!((shares[1] - shares[2]).abs() < 1e-9 && (shares[1] - 0.46875).abs() < 1e-9, "{shares:?}");
    }

    #[test]
    fn plenty_limits_nobody() {
        let shares = divide(4.0, &[Some(0.1), Some(0.2), None]);
        assert!(shares.iter().zip([0.1, 0.2, 0.0]).all(|(share, used)| *share > 2.0 * used), "{shares:?}");
    }

    proptest! {
        #[test]
        fn the_budget_is_kept_and_none_is_starved(
            budget in 0.01_f64..64.0, used in proptest::collection::vec(proptest::option::of(0.0_f64..100.0), 1..50),
        ) {
            let shares = divide(budget, &used);
            let sum: f64 = shares.iter().sum();
            prop_assert!(sum <= budget * 1.000_001, "{sum} of {budget}");
            #[expect(clippy::cast_precision_loss, reason = "a few")]
            let even = budget / used.len() as f64;
            for (share, used) in shares.iter().zip(&used) {
                prop_assert!(*share >= (FLOOR * even).min(even) * 0.999, "{share} starves");
                if let Some(used) = used {
                    prop_assert!(*share >= used.min(even) * 0.999, "less than an even share, and less than it used");
                }
            }
        }
    }
}
