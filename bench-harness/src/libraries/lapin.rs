//! lapin on Tokio: a connection for each publisher and consumer, all of them on the threads of one runtime.

use std::sync::Arc;
use std::time::Duration;

use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_stream::StreamExt;

use super::Worker;
use crate::load::schedule::Schedule;
use crate::load::{Count, Window, now_ns, payload, stamp, stamped};
use crate::measure::Problem;
use crate::queue::Broker;
use crate::queue::workload::Workload;
use crate::raw;

/// How long nothing may come until a consumer looks whether it is over.
const LOOK: Duration = Duration::from_millis(200);
/// How long one goes on after the window.
const GRACE_NS: u64 = 15_000_000_000;
/// Messages that wait to be confirmed, if the load has no limit.
const WITHOUT_CONFIRMS: usize = 1000;

/// The publishers and consumers of a load: one worker that has all of them on its runtime. Publisher n goes to queue n,
/// counted around, and so does consumer n.
pub fn workers(broker: &Broker, workload: &Workload, queues: &[String]) -> Result<Vec<Worker>, Problem> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(raw::cpus().len()).enable_all().build()?;
    let of = |number: usize| queues[number % queues.len()].clone();
    let mut publishers = Vec::new();
    for number in 0..workload.producers {
        publishers.push((runtime.block_on(channel(broker))?, of(number)));
    }
    let mut consumers = Vec::new();
    for number in 0..workload.consumers {
        consumers.push((runtime.block_on(channel(broker))?, of(number)));
    }
    let workload = workload.clone();
    Ok(vec![Box::new(move |window| run(&runtime, publishers, consumers, &workload, window))])
}

/// A connection, which ends when it is dropped, and its only channel.
type Open = (Connection, Channel);

async fn channel(broker: &Broker) -> Result<Open, Problem> {
    let host = broker.virtual_host.replace('/', "%2f");
    let uri = format!("amqp://{}:{}@{}/{host}", broker.user, broker.password, broker.address);
    let connection = Connection::connect(&uri, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    Ok((connection, channel))
}

fn run(
    runtime: &Runtime,
    publishers: Vec<(Open, String)>,
    consumers: Vec<(Open, String)>,
    workload: &Workload,
    window: Window,
) -> Result<Count, Problem> {
    runtime.block_on(async {
        let mut tasks = Vec::new();
        for (open, queue) in consumers {
            tasks.push(tokio::spawn(consume(open, queue, workload.clone(), window)));
        }
        for (number, (open, queue)) in publishers.into_iter().enumerate() {
            tasks.push(tokio::spawn(publish(open, queue, workload.clone(), number, window)));
        }
        let mut count = Count::default();
        for task in tasks {
            count.add(&task.await??);
        }
        Ok(count)
    })
}

async fn publish(
    (_connection, channel): Open,
    queue: String,
    workload: Workload,
    number: usize,
    window: Window,
) -> Result<Count, Problem> {
    if workload.window().is_some() {
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
    }
    let under_way = workload.window().unwrap_or(WITHOUT_CONFIRMS);
    let room = Arc::new(Semaphore::new(under_way));
    let (published, mut to_confirm) = mpsc::channel::<(u64, lapin::PublisherConfirm)>(under_way);
    let size = workload.size as u64;
    let confirmed = tokio::spawn({
        let room = Arc::clone(&room);
        async move {
            let mut count = Count::default();
            while let Some((due, confirm)) = to_confirm.recv().await {
                match confirm.await? {
                    Confirmation::Ack(_) => count.acknowledged_due(&window, [due], size),
                    Confirmation::NotRequested => count.sent(&window, 1, size),
                    Confirmation::Nack(_) => return Err("the broker refused a message".into()),
                }
                room.add_permits(1);
            }
            Ok::<_, Problem>(count)
        }
    });
    let rate = workload.rate * workload.producers as f64;
    let mut schedule =
        workload.is_paced().then(|| Schedule::new(window.start_ns, rate, number, workload.producers));
    let mut body = payload(workload.size, number as u64);
    let properties =
        BasicProperties::default().with_delivery_mode(if workload.is_persistent() { 2 } else { 1 });
    while !window.over() {
        let now = now_ns();
        let due = match &mut schedule {
            Some(schedule) => match schedule.take(now) {
                Some(due) => due,
                None => {
                    sleep(Duration::from_nanos(schedule.next_ns().saturating_sub(now))).await;
                    continue;
                }
            },
            None => now,
        };
        // None is left if the other task has failed; it says why.
        let Ok(Ok(permit)) = timeout(Duration::from_nanos(GRACE_NS), room.acquire()).await else { break };
        permit.forget();
        stamp(&mut body, due);
        let options = BasicPublishOptions::default();
        let confirm = channel
            .basic_publish("".into(), queue.as_str().into(), options, &body, properties.clone())
            .await?;
        if published.send((due, confirm)).await.is_err() {
            break;
        }
    }
    drop(published);
    confirmed.await?
}

async fn consume(
    (_connection, channel): Open,
    queue: String,
    workload: Workload,
    window: Window,
) -> Result<Count, Problem> {
    if workload.qos > 0 {
        channel.basic_qos(workload.qos, BasicQosOptions::default()).await?;
    }
    let options = BasicConsumeOptions { no_ack: workload.autoack, ..BasicConsumeOptions::default() };
    let mut messages =
        channel.basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default()).await?;
    let mut count = Count::default();
    let mut unacknowledged = 0;
    while !raw::interrupted() && now_ns() < window.until_ns.saturating_add(GRACE_NS) {
        if window.over() && !workload.is_paced() {
            break;
        }
        let Ok(message) = timeout(LOOK, messages.next()).await else {
            if window.over() {
                break;
            }
            continue;
        };
        let message = message.ok_or("the consumer was cancelled")??;
        let now = now_ns();
        count.received(&window, now, 1, message.data.len() as u64);
        if let Some(due) = stamped(&message.data) {
            count.arrived(&window, now, due);
        }
        unacknowledged += 1;
        if !workload.autoack && unacknowledged >= workload.multi_ack_every {
            message.ack(BasicAckOptions { multiple: unacknowledged > 1 }).await?;
            unacknowledged = 0;
        }
    }
    Ok(count)
}
