//! Connections that wait for an answer, by a census.

use stallscope_probes::sample::AnswersRaw;

/// So many connections of which the segments say that they wait, and next to none that says otherwise,
/// are no accident.
const ALL_OF_SO_MANY: u32 = 4;
/// Next to none: one for so many that wait. Somebody was answered last of all.
const ANSWERED_ONE_IN: u32 = 8;

/// How many connections wait for an answer, and how long the one that waits longest has done so, ms.
pub fn waiting(answers: &AnswersRaw) -> (u32, Option<u32>) {
    if nearly_all_wait(answers) && answers.perhaps >= ALL_OF_SO_MANY {
        let count = answers.awaiting.saturating_add(answers.perhaps);
        (count, answers.oldest_ms.max(answers.perhaps_oldest_ms))
    } else {
        (answers.awaiting, answers.oldest_ms)
    }
}

const fn nearly_all_wait(answers: &AnswersRaw) -> bool {
    let may_wait = answers.awaiting.saturating_add(answers.perhaps);
    answers.answered.saturating_mul(ANSWERED_ONE_IN) <= may_wait
}

/// How long the client that waits longest has done so, ms, where nearly every client waits; `None`
/// when some do not, or there is none.
pub fn all_wait_ms(answers: &AnswersRaw) -> Option<u32> {
    waiting(answers).1.filter(|_| nearly_all_wait(answers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_believed_when_they_say_it_of_all() {
        let of = |awaiting, perhaps, answered| {
            let answers = AnswersRaw {
                awaiting,
                oldest_ms: (awaiting > 0).then_some(10),
                perhaps,
                perhaps_oldest_ms: (perhaps > 0).then_some(50),
                answered,
                ..AnswersRaw::default()
            };
            waiting(&answers)
        };
        assert_eq!(of(0, 32, 0), (32, Some(50)));
        assert_eq!(of(2, 30, 0), (32, Some(50)));
        assert_eq!(of(2, 30, 4), (32, Some(50)));
        assert_eq!(of(2, 30, 5), (2, Some(10)));
        assert_eq!(of(0, 3, 0), (0, None));
        assert_eq!(of(0, 0, 9), (0, None));
        let all = |awaiting, answered| {
            let oldest_ms = (awaiting > 0).then_some(10);
            all_wait_ms(&AnswersRaw { awaiting, answered, oldest_ms, ..AnswersRaw::default() })
        };
        assert_eq!((all(3, 0), all(3, 1), all(0, 0)), (Some(10), None, None));
        assert_eq!((all(16, 2), all(16, 3)), (Some(10), None));
    }
}
