use super::polling::POLL_EVERY;
use super::*;
use crate::servers::broker::EmbeddedBroker;

fn options(bootstrap: String, ack: Ack) -> SinkOptions {
    SinkOptions {
        bootstrap: Some(bootstrap),
        producer: ProducerKind::Threaded,
        topic: "events".to_owned(),
        ack,
        tuning: Tuning::Default,
        message_timeout: Duration::from_millis(300),
        queue_max: None,
        when_full: WhenFull::Refuse,
        runtimes: 1,
    }
}

/// An address nobody listens on, for as long as the socket is held.
fn dead_broker() -> (socket2::Socket, String) {
    let (socket, address) = crate::servers::fault::closed_port().unwrap();
    (socket, address.to_string())
}

#[test]
fn events_reach_the_broker_and_are_counted() {
    for tuning in [Tuning::Default, Tuning::Tuned] {
        let broker = EmbeddedBroker::start("events").unwrap();
        let options = SinkOptions {
            tuning,
            message_timeout: Duration::from_secs(20),
            ..options(broker.bootstrap(), Ack::Delivery)
        };
        let sink = Sink::start(&options, Arc::new(Heartbeat::off())).unwrap();
        let Published::Pending(receiver) = sink.publish("one") else { panic!("not pending") };
        assert_eq!(receiver.blocking_recv().unwrap(), Ok(Settled::Delivered));
        let expected = Tally { accepted: 1, delivered: 1, failed: 0, lost: 0 };
        assert_eq!(sink.finish(Duration::from_secs(20)), expected);
    }
}

#[test]
fn what_is_not_delivered_is_lost_only_if_it_was_promised() {
    for (ack, lost) in [(Ack::Queue, 1), (Ack::Delivery, 0)] {
        let (_held, bootstrap) = dead_broker();
        let options = options(bootstrap, ack);
        let sink = Sink::start(&options, Arc::new(Heartbeat::off())).unwrap();
        let published = sink.publish("one");
        let expected = Tally { accepted: 1, delivered: 0, failed: 1, lost };
        assert_eq!(sink.finish(Duration::from_secs(20)), expected, "{ack:?}");
        if let Published::Pending(receiver) = published {
            assert!(receiver.blocking_recv().unwrap().is_err());
        }
    }
}

#[test]
fn the_queue_has_a_bound_and_so_has_a_record() {
    let (_held, bootstrap) = dead_broker();
    let options =
        SinkOptions { message_timeout: Duration::from_mins(1), ..options(bootstrap, Ack::Queue) };
    let sink = Sink::start(&options, Arc::new(Heartbeat::off())).unwrap();
    assert!(matches!(sink.publish(&"x".repeat(1_100_000)), Published::TooLarge));
    let text = "x".repeat(1_000_000);
    let taken = std::iter::repeat_with(|| sink.publish(&text))
        .take(200)
        .take_while(|published| matches!(published, Published::Queued))
        .count();
    assert!((60..=68).contains(&taken), "64 MiB hold {taken} records of 1 MB");
    assert!(matches!(sink.publish(&text), Published::Full));
    assert_eq!(sink.finish(Duration::ZERO).lost, taken as u64);
}

#[test]
fn what_finds_the_queue_full_waits_for_room() {
    for ack in [Ack::Queue, Ack::Delivery] {
        let broker = EmbeddedBroker::start("events").unwrap();
        broker.goes_down().unwrap();
        let options = SinkOptions {
            message_timeout: Duration::from_mins(1),
            queue_max: Some(1),
            when_full: WhenFull::Retry,
            ..options(broker.bootstrap(), ack)
        };
        let sink = Sink::start(&options, Arc::new(Heartbeat::off())).unwrap();
        let runtime = tokio::runtime::LocalRuntime::new().unwrap();
        runtime.block_on(async {
            let first = sink.publish("one");
            sink.take_full_for_fault(true);
            let Published::Pending(mut second) = sink.publish("two") else { panic!("no wait") };
            assert!(!sink.take_full_for_fault(false), "the fault has begun");
            assert!(second.try_recv().is_err(), "there is no room");
            broker.comes_up().unwrap();
            let (expected, first) = match first {
                Published::Pending(first) => (Settled::Delivered, first.await.unwrap()),
                _ => (Settled::Queued, Ok(Settled::Queued)),
            };
            assert_eq!((second.await.unwrap(), first), (Ok(expected), Ok(expected)));
        });
        let tally = sink.finish(Duration::from_secs(20));
        assert_eq!((tally.accepted, tally.delivered), (2, 2), "{ack:?}");
    }
}

#[test]
fn without_polling_no_delivery_is_reported() {
    let broker = EmbeddedBroker::start("events").unwrap();
    let options = SinkOptions {
        message_timeout: Duration::from_mins(1),
        ..options(broker.bootstrap(), Ack::Delivery)
    };
    let sink = Sink::start(&options, Arc::new(Heartbeat::off())).unwrap();
    let Published::Pending(first) = sink.publish("one") else { panic!("not pending") };
    assert_eq!(first.blocking_recv().unwrap(), Ok(Settled::Delivered));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(sink.pause_polling());
    let Published::Pending(mut second) = sink.publish("two") else { panic!("not pending") };
    std::thread::sleep(POLL_EVERY * 4);
    assert!(second.try_recv().is_err());
    sink.resume_polling();
    assert_eq!(second.blocking_recv().unwrap(), Ok(Settled::Delivered));
}

#[test]
fn what_is_polled_on_the_runtime_is_delivered_and_counted_too() {
    for producer in [ProducerKind::Base, ProducerKind::Future] {
        for ack in [Ack::Queue, Ack::Delivery] {
            let broker = EmbeddedBroker::start("events").unwrap();
            let options = SinkOptions {
                producer,
                message_timeout: Duration::from_secs(20),
                ..options(broker.bootstrap(), ack)
            };
            let sink = Arc::new(Sink::start(&options, Arc::new(Heartbeat::off())).unwrap());
            let runtime = tokio::runtime::LocalRuntime::new().unwrap();
            runtime.block_on(async {
                let polling = Arc::clone(&sink);
                rt::spawn(async move { polling.poll_on_runtime().await });
                for _ in 0..10 {
                    match sink.publish("one") {
                        Published::Pending(receiver) => {
                            assert_eq!(receiver.await.unwrap(), Ok(Settled::Delivered));
                        }
                        Published::Queued => assert_eq!(ack, Ack::Queue),
                        other => panic!("{other:?}"),
                    }
                }
                sink.settle(Duration::from_secs(20)).await;
            });
            let expected = Tally { accepted: 10, delivered: 10, failed: 0, lost: 0 };
            assert_eq!(sink.finish(Duration::from_secs(20)), expected, "{producer:?} {ack:?}");
        }
    }
}

#[test]
fn nobody_is_told_that_an_event_came_through_which_did_not() {
    for producer in [ProducerKind::Base, ProducerKind::Future] {
        let (_held, bootstrap) = dead_broker();
        let options = SinkOptions { producer, ..options(bootstrap, Ack::Delivery) };
        let sink = Arc::new(Sink::start(&options, Arc::new(Heartbeat::off())).unwrap());
        let runtime = tokio::runtime::LocalRuntime::new().unwrap();
        runtime.block_on(async {
            let polling = Arc::clone(&sink);
            rt::spawn(async move { polling.poll_on_runtime().await });
            let Published::Pending(receiver) = sink.publish("one") else { panic!("not pending") };
            assert!(receiver.await.unwrap().is_err(), "{producer:?}");
        });
        let expected = Tally { accepted: 1, delivered: 0, failed: 1, lost: 0 };
        assert_eq!(sink.finish(Duration::from_secs(20)), expected, "{producer:?}");
    }
}

#[test]
fn without_a_producer_events_go_nowhere() {
    let options = SinkOptions { bootstrap: None, ..options(String::new(), Ack::Queue) };
    let sink = Sink::start(&options, Arc::new(Heartbeat::off())).unwrap();
    assert!(matches!(sink.publish("one"), Published::Queued));
    let expected = Tally { accepted: 0, delivered: 0, failed: 0, lost: 0 };
    assert_eq!(sink.finish(Duration::from_secs(20)), expected);
}

#[test]
fn a_task_that_polls_seldom_keeps_up_with_many_batches() {
    let broker = EmbeddedBroker::start("events").unwrap();
    let options = SinkOptions {
        producer: ProducerKind::Base,
        message_timeout: Duration::from_secs(20),
        ..options(broker.bootstrap(), Ack::Queue)
    };
    let sink = Arc::new(Sink::start(&options, Arc::new(Heartbeat::off())).unwrap());
    let runtime = tokio::runtime::LocalRuntime::new().unwrap();
    runtime.block_on(async {
        let polling = Arc::clone(&sink);
        rt::spawn(async move { polling.poll_on_runtime().await });
        // A batch lingers for 5 ms: each of these is one or more of its own.
        for _ in 0..60 {
            assert!(matches!(sink.publish("one"), Published::Queued));
            rt::sleep(Duration::from_millis(12)).await;
        }
        // At one batch for each poll, every 100 ms, some fifty would be left.
        rt::sleep(Duration::from_millis(500)).await;
        assert!(sink.outlet.queue() < 20, "{} reports were not asked for", sink.outlet.queue());
    });
    assert_eq!(sink.finish(Duration::from_secs(20)).delivered, 60);
}
