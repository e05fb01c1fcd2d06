//! Which tiers stand how, from samples of the made-up server with single readings taken away.

use stallscope_probes::Probe;
use stallscope_probes::sample::{ArmedRaw, RingState};

use super::*;
use crate::model::build::tests::{nothing, probe, ring, thread};

fn absence(why: Why) -> Absence {
    Absence { why, detail: String::from("reason") }
}

fn absent<T>(why: Why) -> Reading<T> {
    Reading::Absent(absence(why))
}

fn status(sample: &Sample, tier: Tier) -> TierStatus {
    let classes = classes(sample);
    for (at, model) in of(sample).iter().enumerate() {
        // What decides whether the words are made anew agrees with the words.
        let agrees = match (&model.status, classes[at]) {
            (TierStatus::Active, class) => class.is_none(),
            (TierStatus::Failed { .. }, class) => {
                matches!(class, Some(Why::Failed | Why::Malformed))
            }
            (TierStatus::Absent { class, .. }, then) => then == Some(*class),
        };
        assert!(agrees, "{model:?} against {:?}", classes[at]);
    }
    of(sample).into_iter().find(|model| model.tier == tier).unwrap().status
}

/// `active`, `failed`, or the class of what is absent.
fn outcome(status: &TierStatus) -> Result<(), Option<Why>> {
    match status {
        TierStatus::Active => Ok(()),
        TierStatus::Absent { class, .. } => Err(Some(*class)),
        TierStatus::Failed { .. } => Err(None),
    }
}

#[test]
fn every_tier_has_its_own_name_and_stands_once_in_each_model() {
    let tiers = of(&nothing(0));
    let listed: Vec<Tier> = tiers.iter().map(|model| model.tier).collect();
    assert_eq!(listed, Tier::ALL);
    assert!(listed.is_sorted(), "as the verdict sorts them");
    for (of, distinct) in [
        ("ids", Tier::ALL.map(Tier::id)),
        ("names", Tier::ALL.map(Tier::name)),
        ("meanings", Tier::ALL.map(Tier::meaning)),
    ] {
        let set: std::collections::BTreeSet<_> = distinct.iter().collect();
        assert_eq!(set.len(), Tier::ALL.len(), "{of}");
    }
    for tier in Tier::ALL {
        let json = serde_json::to_value(tier).unwrap();
        assert_eq!(json, tier.id(), "as in JSON");
    }
}

#[test]
fn each_class_of_reason_becomes_absent_or_failed() {
    for (why, expected, words) in [
        (Why::NotPermitted, Err(Some(Why::NotPermitted)), "CAP_SYS_PTRACE"),
        (Why::Unsupported, Err(Some(Why::Unsupported)), "CONFIG_INET_DIAG"),
        (Why::Gone, Err(Some(Why::Gone)), "nothing"),
        (Why::NotSampled, Err(Some(Why::NotSampled)), "its own pace"),
        (Why::Locked, Err(Some(Why::Locked)), "lock"),
        (Why::NoPrevious, Err(Some(Why::NoPrevious)), "second reading"),
        (Why::Restarted, Err(Some(Why::Restarted)), "second reading"),
        (Why::Malformed, Err(None), ""),
        (Why::Failed, Err(None), ""),
    ] {
        let listeners = Probe { reading: absent(why), ..Probe::not_sampled("") };
        let found = status(&Sample { listeners, ..nothing(0) }, Tier::Listeners);
        assert_eq!(outcome(&found), expected, "{why:?}");
        assert!(found.why().unwrap().contains("reason"), "{found:?}");
        if let TierStatus::Absent { why: said, permit, .. } = &found {
            assert!(permit.contains(words), "{permit}");
            assert_eq!(said.starts_with("not due yet"), why == Why::NotSampled, "{said}");
        }
    }
}

#[test]
fn rights_are_named_for_each_tier() {
    for (tier, right) in [
        (Tier::ThreadCalls, "CAP_SYS_PTRACE"),
        (Tier::KernelStacks, "CAP_SYS_ADMIN"),
        (Tier::RingMemory, "ptrace_scope"),
        (Tier::FdCensus, "CAP_SYS_PTRACE"),
        (Tier::Process, "hidepid"),
        (Tier::Cgroup, "cgroup file system"),
    ] {
        let TierStatus::Absent { permit, .. } =
            TierStatus::without(tier, &absence(Why::NotPermitted))
        else {
            panic!("{tier:?}")
        };
        assert!(permit.contains(right), "{tier:?}: {permit}");
    }
}

#[test]
fn what_one_thread_gave_was_to_be_had() {
    let with = |threads: Vec<ThreadRaw>| Sample { threads: probe(1, threads), ..nothing(0) };
    let mute = |why, stack| {
        let mut mute = thread(1, 0, 0, 0);
        mute.syscall = absent(why);
        mute.wchan = absent(why);
        mute.kernel_stack = stack;
        mute
    };
    let denied = || mute(Why::NotPermitted, absent(Why::NotPermitted));
    let gone = || mute(Why::Gone, absent(Why::NotSampled));
    let seen = || mute(Why::NotSampled, Reading::Got(vec![String::from("futex_wait")]));
    for (threads, calls, stacks) in [
        (vec![thread(1, 0, 0, 0)], Ok(()), Err(Some(Why::NotSampled))),
        (vec![denied()], Err(Some(Why::NotPermitted)), Err(Some(Why::NotPermitted))),
        (vec![denied(), thread(2, 0, 0, 0)], Ok(()), Err(Some(Why::NotPermitted))),
        (vec![gone(), denied()], Err(Some(Why::Gone)), Err(Some(Why::NotPermitted))),
        (vec![denied(), seen()], Err(Some(Why::NotPermitted)), Ok(())),
        (Vec::new(), Err(Some(Why::Gone)), Err(Some(Why::Gone))),
    ] {
        let sample = with(threads);
        assert_eq!(outcome(&status(&sample, Tier::ThreadCalls)), calls, "{sample:?}");
        assert_eq!(outcome(&status(&sample, Tier::KernelStacks)), stacks, "{sample:?}");
        assert_eq!(outcome(&status(&sample, Tier::Threads)), Ok(()));
    }
    let unread = status(&nothing(0), Tier::ThreadCalls);
    assert_eq!(outcome(&unread), Err(Some(Why::NotSampled)));
}

#[test]
fn rings_by_memory_and_by_fdinfo() {
    let with = |rings: Vec<RingRaw>| Sample { rings: probe(1, rings), ..nothing(0) };
    let fdinfo = |state| RingRaw {
        fd: 9,
        source: RingSource::Fdinfo(absence(Why::NotPermitted)),
        state,
        armed: absent(Why::Locked),
    };
    let armed = RingRaw { armed: Reading::Got(ArmedRaw::default()), ..ring(9, 0, 0) };
    let good = || fdinfo(Reading::Got(RingState::default()));
    let not_permitted = Err(Some(Why::NotPermitted));
    for (rings, memory, by_fdinfo) in [
        (vec![ring(9, 0, 0)], Ok(()), Err(Some(Why::NotSampled))),
        (vec![armed], Ok(()), Ok(())),
        (vec![good()], not_permitted, Ok(())),
        (vec![fdinfo(absent(Why::Locked))], not_permitted, Err(Some(Why::Locked))),
        (vec![good(), ring(10, 0, 0)], Ok(()), Ok(())),
        (Vec::new(), Err(Some(Why::Unsupported)), Err(Some(Why::Unsupported))),
    ] {
        let sample = with(rings);
        assert_eq!(outcome(&status(&sample, Tier::RingMemory)), memory, "{sample:?}");
        assert_eq!(outcome(&status(&sample, Tier::RingFdinfo)), by_fdinfo, "{sample:?}");
    }
    let none = status(&with(Vec::new()), Tier::RingMemory);
    assert_eq!(none.why(), Some("the process has no io_uring"));
}

#[test]
fn a_cgroup_that_tells_nothing_is_not_seen() {
    let with =
        |raw: CgroupRaw| status(&Sample { cgroup: probe(1, raw), ..nothing(0) }, Tier::Cgroup);
    assert_eq!(outcome(&with(CgroupRaw::default())), Err(Some(Why::Unsupported)));
    for raw in [
        CgroupRaw { frozen: Some(false), ..CgroupRaw::default() },
        CgroupRaw { nr_throttled: Some(0), ..CgroupRaw::default() },
        CgroupRaw { oom_kill: Some(0), ..CgroupRaw::default() },
    ] {
        assert_eq!(with(raw), TierStatus::Active, "{raw:?}");
    }
}

#[test]
fn a_first_turn_is_no_news_and_a_loss_is() {
    let absent = |why| TierStatus::without(Tier::Peers, &absence(why));
    let failed = || absent(Why::Failed);
    for (before, now, news) in [
        (absent(Why::NotSampled), TierStatus::Active, false),
        (absent(Why::NoPrevious), TierStatus::Active, false),
        (TierStatus::Active, absent(Why::Locked), false),
        (TierStatus::Active, TierStatus::Active, false),
        (TierStatus::Active, absent(Why::NotPermitted), true),
        (absent(Why::NotPermitted), TierStatus::Active, true),
        (absent(Why::NotSampled), absent(Why::NotPermitted), true),
        (absent(Why::NotSampled), failed(), true),
        (TierStatus::Active, failed(), true),
        (failed(), TierStatus::Active, true),
        (failed(), failed(), false),
    ] {
        assert_eq!(now.is_news_after(&before), news, "{before:?} -> {now:?}");
    }
    // The same class in other words.
    let other = Absence { why: Why::Gone, detail: String::from("other words") };
    let other = TierStatus::without(Tier::Peers, &other);
    assert!(!other.is_news_after(&absent(Why::Gone)));
}
