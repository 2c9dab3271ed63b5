//! A day's work with lapin: see ../../README.md for what every client does.

use futures_lite::StreamExt;
use lapin::message::BasicReturnMessage;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, BasicQosOptions,
    BasicRejectOptions, ConfirmSelectOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind};

const COUNT: u32 = 1000;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let address = std::env::args().nth(1).ok_or("where?")?;
    let uri = format!("amqp://guest:guest@{address}/%2f?heartbeat=10");
    let connection = Connection::connect(&uri, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    for queue in ["lapin.work", "lapin.dead", "lapin.rpc"] {
        channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await?;
    }
    channel.exchange_delete("lapin.topic".into(), ExchangeDeleteOptions::default()).await?;
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare("lapin.topic".into(), ExchangeKind::Topic, durable, FieldTable::default()).await?;
    channel.queue_declare("lapin.dead".into(), QueueDeclareOptions::durable(), FieldTable::default()).await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString("".into()));
    arguments.insert("x-dead-letter-routing-key".into(), AMQPValue::LongString("lapin.dead".into()));
    channel.queue_declare("lapin.work".into(), QueueDeclareOptions::durable(), arguments).await?;
    let bind = QueueBindOptions::default();
    channel.queue_bind("lapin.work".into(), "lapin.topic".into(), "a.#".into(), bind, FieldTable::default()).await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let mut confirms = Vec::new();
    for number in 0..COUNT {
        let mut headers = FieldTable::default();
        headers.insert("n".into(), AMQPValue::LongUInt(number));
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_headers(headers)
            .with_message_id(number.to_string().into());
        confirms.push(publish(&channel, "lapin.topic", "a.b", &format!("body {number}"), properties).await?);
    }
    for confirm in confirms {
        if !matches!(confirm.await?, Confirmation::Ack(None)) {
            return Err("not confirmed".into());
        }
    }
    println!("confirmed {COUNT}");
    let confirm = publish(&channel, "lapin.topic", "nowhere", "x", BasicProperties::default()).await?;
    match confirm.await? {
        Confirmation::Ack(Some(returned)) => show(&returned),
        other => return Err(format!("{other:?}").into()),
    }
    work(&connection).await?;
    dead(&connection).await?;
    rpc(&connection).await?;
    transaction(&connection).await?;
    failure(&connection).await?;
    println!("deleted {}", channel.queue_delete("lapin.work".into(), QueueDeleteOptions::default()).await?);
    connection.close(200, "bye".into()).await?;
    println!("closed");
    Ok(())
}

fn show(returned: &BasicReturnMessage) {
    println!("returned {} {}", returned.reply_code, returned.reply_text);
}

async fn publish(
    channel: &Channel,
    exchange: &str,
    key: &str,
    body: &str,
    properties: BasicProperties,
) -> lapin::Result<lapin::PublisherConfirm> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    channel.basic_publish(exchange.into(), key.into(), options, body.as_bytes(), properties).await
}

async fn work(connection: &Connection) -> Outcome<()> {
    let channel = connection.create_channel().await?;
    channel.basic_qos(50, BasicQosOptions::default()).await?;
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer = channel.basic_consume("lapin.work".into(), "worker".into(), options, arguments).await?;
    let (mut in_order, mut redelivered) = (true, 0);
    for number in 0..COUNT {
        let delivery = consumer.next().await.ok_or("the consumer ended")??;
        in_order &= delivery.data == format!("body {number}").as_bytes();
        redelivered += u32::from(delivery.redelivered);
        if number % 2 == 0 {
            delivery.ack(BasicAckOptions::default()).await?;
        } else {
            delivery.reject(BasicRejectOptions { requeue: false }).await?;
        }
    }
    channel.basic_cancel("worker".into(), BasicCancelOptions::default()).await?;
    println!("in order {in_order} redelivered {redelivered}");
    let got = channel.basic_get("lapin.work".into(), BasicGetOptions::default()).await?;
    println!("empty {}", got.is_none());
    channel.close(200, "".into()).await?;
    Ok(())
}

async fn dead(connection: &Connection) -> Outcome<()> {
    let channel = connection.create_channel().await?;
    let (mut count, mut last) = (0, None);
    while let Some(got) = channel.basic_get("lapin.dead".into(), BasicGetOptions::default()).await? {
        let headers = got.delivery.properties.headers().clone().unwrap_or_default();
        if count == 0
            && let Some(AMQPValue::FieldArray(deaths)) = headers.inner().get("x-death")
            && let Some(AMQPValue::FieldTable(death)) = deaths.as_slice().first()
        {
            let text = |name: &str| match death.inner().get(name) {
                Some(AMQPValue::LongString(text)) => text.to_string(),
                Some(AMQPValue::FieldArray(keys)) => match keys.as_slice() {
                    [AMQPValue::LongString(key)] => key.to_string(),
                    other => format!("{other:?}"),
                },
                Some(AMQPValue::LongLongInt(count)) => count.to_string(),
                other => format!("{other:?}"),
            };
            let [reason, queue, exchange, keys, count] =
                ["reason", "queue", "exchange", "routing-keys", "count"].map(text);
            println!("death {reason} {queue} {exchange} {keys} {count}");
        }
        count += 1;
        last = Some(got);
    }
    if let Some(last) = last {
        last.delivery.ack(BasicAckOptions { multiple: true }).await?;
    }
    println!("dead {count}");
    channel.close(200, "".into()).await?;
    Ok(())
}

async fn rpc(connection: &Connection) -> Outcome<()> {
    let (client, server) = (connection.create_channel().await?, connection.create_channel().await?);
    let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    server.queue_declare("lapin.rpc".into(), exclusive, FieldTable::default()).await?;
    let options = BasicConsumeOptions::default();
    let mut questions =
        server.basic_consume("lapin.rpc".into(), "".into(), options, FieldTable::default()).await?;
    let no_ack = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let mut answers = client
        .basic_consume("amq.rabbitmq.reply-to".into(), "".into(), no_ack, FieldTable::default())
        .await?;
    let properties = BasicProperties::default().with_reply_to("amq.rabbitmq.reply-to".into());
    publish(&client, "", "lapin.rpc", "question", properties).await?;
    let question = questions.next().await.ok_or("no question")??;
    let body = String::from_utf8_lossy(&question.data).to_uppercase();
    let reply_to = question.properties.reply_to().clone().ok_or("no address")?;
    publish(&server, "", reply_to.as_str(), &body, BasicProperties::default()).await?;
    question.ack(BasicAckOptions::default()).await?;
    let answer = answers.next().await.ok_or("no answer")??;
    println!("answer {}", String::from_utf8_lossy(&answer.data));
    client.close(200, "".into()).await?;
    server.close(200, "".into()).await?;
    Ok(())
}

async fn transaction(connection: &Connection) -> Outcome<()> {
    let channel = connection.create_channel().await?;
    channel.tx_select().await?;
    for commits in [false, true] {
        for _ in 0..3 {
            publish(&channel, "", "lapin.work", "x", BasicProperties::default().with_delivery_mode(2)).await?;
        }
        if commits {
            channel.tx_commit().await?;
        } else {
            channel.tx_rollback().await?;
        }
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = channel.queue_declare("lapin.work".into(), passive, FieldTable::default()).await?;
        println!("after {} {}", if commits { "tx_commit" } else { "tx_rollback" }, queue.message_count());
    }
    channel.close(200, "".into()).await?;
    Ok(())
}

async fn failure(connection: &Connection) -> Outcome<()> {
    let channel = connection.create_channel().await?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare("lapin.none".into(), passive, FieldTable::default()).await;
    if let Err(error) = declared
        && let lapin::ErrorKind::ProtocolError(error) = error.kind()
    {
        println!("refused {} {}", error.get_id(), error.get_message());
    }
    Ok(())
}
