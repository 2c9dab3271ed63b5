// franz-go. The contract is in ../README.md.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const partitions = 8

var codecs = map[string]kgo.CompressionCodec{
	"none":   kgo.NoCompression(),
	"gzip":   kgo.GzipCompression(),
	"snappy": kgo.SnappyCompression(),
	"lz4":    kgo.Lz4Compression(),
	"zstd":   kgo.ZstdCompression(),
}

func main() {
	address, topic, file, last := os.Args[2], os.Args[3], os.Args[4], os.Args[5]
	switch os.Args[1] {
	case "produce":
		produce(address, topic, file, last)
	case "consume":
		consume(address, topic, file, number(last))
	case "group":
		group(address, topic, file, last)
	default:
		log.Fatal(os.Args[1])
	}
}

func produce(address, topic, file, codec string) {
	client := client(address,
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(codecs[codec]),
		kgo.ProducerLinger(20*time.Millisecond),
	)
	defer client.Close()
	data, err := os.ReadFile(file)
	check(err)
	for len(data) > 0 {
		line, rest, _ := bytes.Cut(data, []byte("\n"))
		fields := strings.Split(string(line), " ")
		record := &kgo.Record{
			Topic:     topic,
			Partition: int32(number(fields[0])),
			Timestamp: time.UnixMilli(int64(number(fields[2]))),
			Headers:   decode(fields[5]),
		}
		record.Key, rest = take(rest, number(fields[3]))
		record.Value, rest = take(rest, number(fields[4]))
		data = rest[1:]
		client.Produce(context.Background(), record, func(_ *kgo.Record, err error) { check(err) })
	}
	check(client.Flush(context.Background()))
}

func consume(address, topic, out string, count int) {
	assigned := map[int32]kgo.Offset{}
	for partition := range int32(partitions) {
		assigned[partition] = kgo.NewOffset().AtStart()
	}
	client := client(address, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: assigned}))
	defer client.Close()
	file := create(out)
	for count > 0 {
		count -= poll(context.Background(), client, file)
	}
	check(file.Flush())
}

func group(address, topic, out, name string) {
	stopped, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	client := client(address,
		kgo.ConsumerGroup(name),
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.SessionTimeout(6*time.Second),
		kgo.HeartbeatInterval(time.Second),
		kgo.DisableAutoCommit(),
		// Else a commit may fall into a rebalance, and be refused.
		kgo.BlockRebalanceOnPoll(),
	)
	defer client.CloseAllowingRebalance()
	file := create(out)
	for stopped.Err() == nil {
		if poll(stopped, client, file) > 0 {
			check(file.Flush())
			if err := client.CommitUncommittedOffsets(context.Background()); err != nil {
				log.Print("commit: ", err)
			}
		}
		client.AllowRebalance()
	}
}

func client(address string, options ...kgo.Opt) *kgo.Client {
	client, err := kgo.NewClient(append(options, kgo.SeedBrokers(address))...)
	check(err)
	return client
}

// Writes what one poll brings; says how many records that were.
func poll(ctx context.Context, client *kgo.Client, out *bufio.Writer) int {
	fetches := client.PollFetches(ctx)
	for _, fault := range fetches.Errors() {
		if ctx.Err() == nil {
			log.Print(fault.Partition, ": ", fault.Err)
		}
	}
	fetches.EachRecord(func(record *kgo.Record) {
		fmt.Fprintf(out, "%d %d %d %d %d %s\n", record.Partition, record.Offset, record.Timestamp.UnixMilli(),
			length(record.Key), length(record.Value), encode(record.Headers))
		out.Write(record.Key)
		out.Write(record.Value)
		out.WriteByte('\n')
	})
	return fetches.NumRecords()
}

func encode(headers []kgo.RecordHeader) string {
	if len(headers) == 0 {
		return "-"
	}
	var parts []string
	for _, header := range headers {
		parts = append(parts, header.Key+"="+hex.EncodeToString(header.Value))
	}
	return strings.Join(parts, ",")
}

func decode(text string) []kgo.RecordHeader {
	var headers []kgo.RecordHeader
	for _, part := range strings.Split(strings.TrimPrefix(text, "-"), ",") {
		if name, value, found := strings.Cut(part, "="); found {
			value, err := hex.DecodeString(value)
			check(err)
			headers = append(headers, kgo.RecordHeader{Key: name, Value: value})
		}
	}
	return headers
}

func take(data []byte, length int) (field, rest []byte) {
	if length < 0 {
		return nil, data
	}
	return data[:length:length], data[length:]
}

func length(field []byte) int {
	if field == nil {
		return -1
	}
	return len(field)
}

func create(path string) *bufio.Writer {
	file, err := os.Create(path)
	check(err)
	return bufio.NewWriterSize(file, 1<<20)
}

func number(text string) int {
	number, err := strconv.Atoi(text)
	check(err)
	return number
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
