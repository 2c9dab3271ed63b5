// The Java client. The contract is in ../README.md.

import java.io.BufferedOutputStream;
import java.io.DataInputStream;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.BufferedInputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.Future;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.StreamSupport;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public class Client {
    static final int PARTITIONS = 8;

    public static void main(String[] args) throws Exception {
        switch (args[0]) {
            case "produce" -> produce(args[1], args[2], args[3], args[4]);
            case "consume" -> consume(args[1], args[2], args[3], Integer.parseInt(args[4]));
            case "group" -> group(args[1], args[2], args[3], args[4]);
            default -> throw new IllegalArgumentException(args[0]);
        }
    }

    static void produce(String address, String topic, String file, String codec) throws Exception {
        Properties settings = settings(address, Map.of(
                "acks", "all", "compression.type", codec, "linger.ms", "20", "batch.size", "262144"));
        var serializer = new ByteArraySerializer();
        try (var producer = new KafkaProducer<>(settings, serializer, serializer);
                var in = new DataInputStream(new BufferedInputStream(new FileInputStream(file), 1 << 20))) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (String line; (line = line(in)) != null; ) {
                String[] fields = line.split(" ");
                byte[] key = bytes(in, Integer.parseInt(fields[3]));
                byte[] value = bytes(in, Integer.parseInt(fields[4]));
                in.readByte();
                sent.add(producer.send(new ProducerRecord<>(topic, Integer.valueOf(fields[0]),
                        Long.valueOf(fields[2]), key, value, headers(fields[5]))));
            }
            producer.flush();
            for (Future<RecordMetadata> one : sent) {
                one.get();
            }
        }
    }

    static void consume(String address, String topic, String out, int count) throws Exception {
        try (var consumer = consumer(address, Map.of()); var file = new BufferedOutputStream(new FileOutputStream(out))) {
            consumer.assign(IntStream.range(0, PARTITIONS).mapToObj(p -> new TopicPartition(topic, p)).toList());
            consumer.seekToBeginning(consumer.assignment());
            for (int left = count; left > 0; ) {
                left -= write(file, consumer.poll(Duration.ofSeconds(1)));
            }
        }
    }

    static void group(String address, String topic, String out, String group) throws Exception {
        var main = Thread.currentThread();
        var consumer = consumer(address, Map.of("group.id", group, "session.timeout.ms", "6000", "heartbeat.interval.ms", "1000"));
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            consumer.wakeup();
            try {
                main.join();
            } catch (InterruptedException ended) {
                Thread.currentThread().interrupt();
            }
        }));
        try (var file = new BufferedOutputStream(new FileOutputStream(out))) {
            consumer.subscribe(List.of(topic));
            while (true) {
                if (write(file, consumer.poll(Duration.ofMillis(200))) > 0) {
                    file.flush();
                    consumer.commitAsync();
                }
            }
        } catch (WakeupException stopped) {
            consumer.commitSync();
            consumer.close();
            Runtime.getRuntime().halt(0);
        }
    }

    static KafkaConsumer<byte[], byte[]> consumer(String address, Map<String, String> more) {
        Properties settings = settings(address, Map.of("auto.offset.reset", "earliest", "enable.auto.commit", "false"));
        settings.putAll(more);
        var deserializer = new ByteArrayDeserializer();
        return new KafkaConsumer<>(settings, deserializer, deserializer);
    }

    static Properties settings(String address, Map<String, String> more) {
        var settings = new Properties();
        settings.put("bootstrap.servers", address);
        settings.putAll(more);
        return settings;
    }

    static int write(OutputStream file, ConsumerRecords<byte[], byte[]> records) throws IOException {
        for (ConsumerRecord<byte[], byte[]> record : records) {
            file.write("%d %d %d %d %d %s\n".formatted(record.partition(), record.offset(), record.timestamp(),
                    length(record.key()), length(record.value()), encode(record)).getBytes(StandardCharsets.US_ASCII));
            file.write(record.key() == null ? new byte[0] : record.key());
            file.write(record.value() == null ? new byte[0] : record.value());
            file.write('\n');
        }
        return records.count();
    }

    static int length(byte[] field) {
        return field == null ? -1 : field.length;
    }

    static String encode(ConsumerRecord<byte[], byte[]> record) {
        String headers = StreamSupport.stream(record.headers().spliterator(), false)
                .map(header -> header.key() + "=" + HexFormat.of().formatHex(header.value()))
                .collect(Collectors.joining(","));
        return headers.isEmpty() ? "-" : headers;
    }

    static List<Header> headers(String text) {
        List<Header> headers = new ArrayList<>();
        for (String header : text.equals("-") ? new String[0] : text.split(",")) {
            String[] parts = header.split("=", 2);
            headers.add(new RecordHeader(parts[0], HexFormat.of().parseHex(parts[1])));
        }
        return headers;
    }

    static String line(DataInputStream in) throws IOException {
        var line = new StringBuilder();
        for (int c; (c = in.read()) != '\n'; line.append((char) c)) {
            if (c < 0) {
                return null;
            }
        }
        return line.toString();
    }

    static byte[] bytes(DataInputStream in, int length) throws IOException {
        return length < 0 ? null : in.readNBytes(length);
    }
}
