//! Medians, with the quarter of the rounds below and above.

use serde::{Deserialize, Serialize};

/// What some rounds measured.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
    pub(crate) worst: f64,
    pub(crate) rounds: usize,
}

impl Spread {
    /// The quartiles of the values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |quarter: usize| {
            let last = values.len().saturating_sub(1);
            // Between two values, the nearer one.
            let place = (last * quarter + 2) / 4;
            values.get(place).copied().unwrap_or(f64::NAN)
        };
        Spread {
            low: at(1),
            median: at(2),
            high: at(3),
            worst: at(4),
            rounds: values.len(),
        }
    }

    /// What was counted or computed once.
    pub(crate) fn exactly(value: f64) -> Spread {
        Spread::of([value])
    }
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn quartiles_are_values_of_the_rounds() {
        let spread = Spread::of([5.0, 1.0, 3.0, 2.0, 4.0]);
        assert_eq!(
            (spread.low, spread.median, spread.high, spread.rounds),
            (2.0, 3.0, 4.0, 5)
        );
    }

    #[test]
    fn one_round_has_no_spread() {
        let spread = Spread::exactly(7.0);
        assert_eq!((spread.low, spread.median, spread.high), (7.0, 7.0, 7.0));
    }
}
