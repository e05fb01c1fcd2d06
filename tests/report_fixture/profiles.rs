//! Profiles of the made-up incidents.

use stallscope::profile::stacks::{Kind, Maker};
use stallscope::watch::event::ProfileWindow;

use super::{BEGIN_NS, S};

/// A window of two seconds.
pub fn profile(begin_s: u64, folded: &str) -> ProfileWindow {
    ProfileWindow {
        begin_ns: BEGIN_NS + begin_s * S,
        end_ns: BEGIN_NS + (begin_s + 2) * S,
        kind: Kind::Cpu,
        maker: Maker::Itself,
        hz: 99,
        folded: folded.to_owned(),
        notes: Vec::new(),
    }
}

const RUNTIME: &str = "tokio-uring;main;tokio_uring::start;tokio_uring::runtime::Runtime::block_on;\
    tokio::runtime::current_thread::CurrentThread::block_on;tokio::task::local::LocalSet::tick";

/// Where a serving runtime spends its time.
pub fn serving() -> String {
    [
        (";stallscope::servers::http::serve;httparse::Request::parse", 21),
        (";stallscope::servers::http::serve;stallscope::servers::sink::Sink::publish;\
          rdkafka::producer::BaseProducer::send::h0f3a77c2be11d904;rd_kafka_producev", 34),
        (";stallscope::servers::http::serve;tokio_uring::net::TcpStream::write;\
          tokio_uring::driver::op::Op<T,CqeType>::submit_with", 18),
        (";stallscope::servers::http::serve;<[u8; 4096] as core::clone::Clone>::clone", 4),
        (";tokio::runtime::driver::Driver::park;mio::poll::Poll::poll;epoll_wait", 11),
        (";tokio_uring::runtime::drive_uring_wakes;tokio_uring::driver::Driver::dispatch_completions", 16),
    ]
    .iter()
    .map(|(tail, count)| format!("{RUNTIME}{tail} {count}\n"))
    .chain([String::from("rdk:broker1;rd_kafka_broker_thread_main;rd_kafka_broker_serve;poll 9\n")])
    .collect()
}

pub fn spinning() -> String {
    format!(
        "{RUNTIME};stallscope::servers::uring::always_ready;core::task::wake::Waker::wake_by_ref 131\n\
         {RUNTIME};stallscope::servers::uring::always_ready;tokio::task::yield_now 42\n\
         {RUNTIME};core::ptr::drop_in_place 20\n\
         rdk:broker1;rd_kafka_broker_thread_main;rd_kafka_broker_serve;poll 2\n"
    )
}

/// A window of waits, seen from outside.
pub fn waits(begin_s: u64, folded: &str) -> ProfileWindow {
    ProfileWindow {
        kind: Kind::OffCpu,
        maker: Maker::Watcher,
        notes: vec![String::from("waits shorter than 1 ms were not looked at")],
        ..profile(begin_s, folded)
    }
}

/// A serving runtime waits for completions, Kafka's threads for work.
pub fn waiting() -> String {
    format!(
        "{RUNTIME};tokio::runtime::driver::Driver::park;mio::poll::Poll::poll;epoll_wait;\
         do_syscall_64_[k];ep_poll_[k];schedule_[k] 830000\n{KAFKA_WAITS}"
    )
}

/// Only Kafka's threads wait: the runtime's spins.
pub fn others_waiting() -> String {
    KAFKA_WAITS.to_owned()
}

/// The runtime's thread waits in a call of its own.
pub fn sleeping() -> String {
    format!(
        "{RUNTIME};stallscope::servers::http::serve;orders::price::lookup_[i];\
         std::thread::sleep;clock_nanosleep;do_syscall_64_[k];hrtimer_nanosleep_[k];schedule_[k] \
         1990000\n{KAFKA_WAITS}"
    )
}

const KAFKA_WAITS: &str = "rdk:broker1;rd_kafka_broker_thread_main;rd_kafka_broker_serve;poll;\
    do_syscall_64_[k];do_sys_poll_[k];schedule_[k] 1880000\n\
    rdk:main;rd_kafka_thread_main;cnd_timedwait;__futex_abstimed_wait_common_[?];\
    futex_wait_[k];schedule_[k] 1960000\n";

/// More stacks than can be drawn, with names as long as those of futures.
pub fn wide(healthy: bool) -> String {
    let side = if healthy { "before" } else { "after" };
    let line = |n: usize| {
        format!(
            "{RUNTIME};core::future::poll_fn::PollFn<service::routes_{n}::handler::{{{{closure}}}}>\
             ;service::{side}_{n}::<alloc::boxed::Box<dyn core::future::future::Future>>;\
             service::shared_{};leaf_{n} {}\n",
            n % 40,
            1 + n % 5
        )
    };
    (0..2_500).map(line).collect()
}
