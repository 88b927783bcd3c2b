//! I-10, no expired read: nothing is served after its time, nothing dies before it, and what was said to have expired stays so.
//!
//! Source: S-4, `service::read` (a 410 is final unless the session is renewed). Times are true ones; a group's time may be `slack` from
//! them while most clocks are right.

use std::time::Duration;

use model::time::UnixMillis;

/// What a client was told of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It is there, and expires then.
    Served(UnixMillis),
    /// It expired then.
    Expired(UnixMillis),
}

/// An answer of a linearizable operation on one session.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// When it was asked.
    pub began: UnixMillis,
    /// When it was answered.
    pub ended: UnixMillis,
    /// What.
    pub told: Told,
}

/// Checks the answers of one session, in order of their ends.
///
/// # Errors
/// The rule that does not hold, and the places of the answers that break it.
pub fn check(answers: &[Answer], slack: Duration) -> Result<(), (&'static str, Vec<usize>)> {
    let mut over: Option<(UnixMillis, usize)> = None;
    for (place, answer) in answers.iter().enumerate() {
        match answer.told {
            Told::Served(expires) => {
                if answer.began > expires.plus(slack) {
                    return Err(("I-10: a session was served after its time", vec![place]));
                }
                if let Some((since, by)) = over
                    && expires <= since
                    && answers[by].ended < answer.began
                {
                    return Err((
                        "I-10: a session that had expired was served",
                        vec![by, place],
                    ));
                }
            }
            Told::Expired(at) => {
                if answer.ended.plus(slack) < at {
                    return Err(("I-10: a session died before its time", vec![place]));
                }
                if over.is_none_or(|(since, _)| since < at) {
                    over = Some((at, place));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Told::{Expired, Served};
    use super::*;

    fn checked(answers: &[(u64, Told)]) -> Result<(), (&'static str, Vec<usize>)> {
        let answers: Vec<Answer> = answers
            .iter()
            .map(|(at, told)| Answer {
                began: UnixMillis(*at),
                ended: UnixMillis(*at + 10),
                told: *told,
            })
            .collect();
        check(&answers, Duration::from_millis(100))
    }

    #[test]
    fn what_is_served_late_or_dies_early_is_found() {
        let at = UnixMillis(1000);
        assert_eq!(checked(&[(1090, Served(at)), (1095, Expired(at))]), Ok(()));
        assert!(checked(&[(1101, Served(at))]).is_err());
        assert!(checked(&[(880, Expired(at))]).is_err());
        assert_eq!(checked(&[(950, Expired(at))]), Ok(()));
    }

    #[test]
    fn what_has_expired_is_served_only_when_it_was_renewed() {
        let (at, later) = (UnixMillis(1000), UnixMillis(2000));
        let died = (1000, Expired(at));
        assert_eq!(checked(&[died, (1050, Served(later))]), Ok(()));
        let found = checked(&[died, (1050, Served(at))]);
        assert_eq!(found.map_err(|(_, places)| places), Err(vec![0, 1]));
        // It was asked before the other was answered.
        assert_eq!(checked(&[died, (1005, Served(at))]), Ok(()));
    }
}
