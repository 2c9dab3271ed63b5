import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.DeliverCallback;
import com.rabbitmq.client.GetResponse;
import com.rabbitmq.client.ShutdownSignalException;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;

/** A day's work with RabbitMQ's Java client: see ../README.md for what every client does. */
public class Client {
    static final int COUNT = 1000;

    public static void main(String[] arguments) throws Exception {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri("amqp://guest:guest@" + arguments[0] + "/%2F");
        factory.setRequestedHeartbeat(10);
        try (Connection connection = factory.newConnection()) {
            Channel channel = connection.createChannel();
            for (String queue : List.of("java.work", "java.dead", "java.rpc")) {
                channel.queueDelete(queue);
            }
            channel.exchangeDelete("java.topic");
            channel.exchangeDeclare("java.topic", "topic", true);
            channel.queueDeclare("java.dead", true, false, false, null);
            channel.queueDeclare("java.work", true, false, false,
                Map.of("x-dead-letter-exchange", "", "x-dead-letter-routing-key", "java.dead"));
            channel.queueBind("java.work", "java.topic", "a.#");
            channel.confirmSelect();
            BlockingQueue<String> returned = new LinkedBlockingQueue<>();
            channel.addReturnListener(message -> returned.add(message.getReplyCode() + " " + message.getReplyText()));
            for (int number = 0; number < COUNT; number++) {
                AMQP.BasicProperties properties = new AMQP.BasicProperties.Builder().deliveryMode(2)
                    .headers(Map.of("n", number)).messageId(Integer.toString(number)).build();
                channel.basicPublish("java.topic", "a.b", true, properties, ("body " + number).getBytes());
            }
            channel.waitForConfirmsOrDie(30_000);
            System.out.println("confirmed " + COUNT);
            channel.basicPublish("java.topic", "nowhere", true, null, "x".getBytes());
            channel.waitForConfirmsOrDie(30_000);
            System.out.println("returned " + returned.take());
            work(connection);
            dead(connection);
            rpc(connection);
            transaction(connection);
            failure(connection);
            System.out.println("deleted " + channel.queueDelete("java.work").getMessageCount());
        }
        System.out.println("closed");
    }

    static void work(Connection connection) throws Exception {
        Channel channel = connection.createChannel();
        channel.basicQos(50);
        List<Integer> numbers = new ArrayList<>();
        BlockingQueue<Boolean> done = new LinkedBlockingQueue<>();
        int[] redelivered = {0};
        String tag = channel.basicConsume("java.work", false, (consumer, delivery) -> {
            int number = (int) delivery.getProperties().getHeaders().get("n");
            if (!new String(delivery.getBody()).equals("body " + number)) {
                done.add(false);
            }
            numbers.add(number);
            redelivered[0] += delivery.getEnvelope().isRedeliver() ? 1 : 0;
            if (number % 2 == 0) {
                channel.basicAck(delivery.getEnvelope().getDeliveryTag(), false);
            } else {
                channel.basicReject(delivery.getEnvelope().getDeliveryTag(), false);
            }
            if (numbers.size() == COUNT) {
                done.add(true);
            }
        }, consumer -> { });
        boolean inOrder = done.take();
        for (int number = 0; number < COUNT; number++) {
            inOrder &= numbers.get(number) == number;
        }
        channel.basicCancel(tag);
        System.out.println("in order " + inOrder + " redelivered " + redelivered[0]);
        System.out.println("empty " + (channel.basicGet("java.work", false) == null));
        channel.close();
    }

    static void dead(Connection connection) throws Exception {
        Channel channel = connection.createChannel();
        int count = 0;
        long last = 0;
        for (GetResponse got; (got = channel.basicGet("java.dead", false)) != null; count++) {
            Map<?, ?> death = (Map<?, ?>) ((List<?>) got.getProps().getHeaders().get("x-death")).get(0);
            if (count == 0) {
                System.out.println("death " + death.get("reason") + " " + death.get("queue") + " " + death.get("exchange")
                    + " " + death.get("routing-keys") + " " + death.get("count"));
            }
            last = got.getEnvelope().getDeliveryTag();
        }
        channel.basicAck(last, true);
        System.out.println("dead " + count);
        channel.close();
    }

    static void rpc(Connection connection) throws Exception {
        Channel client = connection.createChannel();
        Channel server = connection.createChannel();
        server.queueDeclare("java.rpc", false, true, false, null);
        DeliverCallback serve = (consumer, delivery) -> {
            byte[] answer = new String(delivery.getBody()).toUpperCase().getBytes();
            server.basicPublish("", delivery.getProperties().getReplyTo(), null, answer);
            server.basicAck(delivery.getEnvelope().getDeliveryTag(), false);
        };
        server.basicConsume("java.rpc", serve, consumer -> { });
        BlockingQueue<String> answers = new LinkedBlockingQueue<>();
        client.basicConsume("amq.rabbitmq.reply-to", true,
            (consumer, delivery) -> answers.add(new String(delivery.getBody())), consumer -> { });
        AMQP.BasicProperties question = new AMQP.BasicProperties.Builder().replyTo("amq.rabbitmq.reply-to").build();
        client.basicPublish("", "java.rpc", question, "question".getBytes());
        System.out.println("answer " + answers.take());
        client.close();
        server.close();
    }

    static void transaction(Connection connection) throws Exception {
        Channel channel = connection.createChannel();
        channel.txSelect();
        for (boolean commits : new boolean[] {false, true}) {
            for (int number = 0; number < 3; number++) {
                channel.basicPublish("", "java.work", new AMQP.BasicProperties.Builder().deliveryMode(2).build(), "x".getBytes());
            }
            if (commits) {
                channel.txCommit();
            } else {
                channel.txRollback();
            }
            System.out.println("after " + (commits ? "tx_commit " : "tx_rollback ")
                + channel.queueDeclarePassive("java.work").getMessageCount());
        }
        channel.close();
    }

    static void failure(Connection connection) throws Exception {
        Channel channel = connection.createChannel();
        try {
            channel.queueDeclarePassive("java.none");
        } catch (IOException error) {
            ShutdownSignalException signal = (ShutdownSignalException) error.getCause();
            AMQP.Channel.Close close = (AMQP.Channel.Close) signal.getReason();
            System.out.println("refused " + close.getReplyCode() + " " + close.getReplyText());
        }
    }
}
