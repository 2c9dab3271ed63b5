// A day's work with amqp091-go: see ../README.md for what every client does.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const count = 1000

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	connection := must(amqp.DialConfig("amqp://guest:guest@"+os.Args[1]+"/", amqp.Config{Heartbeat: 10 * time.Second}))
	channel := must(connection.Channel())
	for _, queue := range []string{"go.work", "go.dead", "go.rpc"} {
		must(channel.QueueDelete(queue, false, false, false))
	}
	check(channel.ExchangeDelete("go.topic", false, false))
	check(channel.ExchangeDeclare("go.topic", "topic", true, false, false, false, nil))
	must(channel.QueueDeclare("go.dead", true, false, false, false, nil))
	arguments := amqp.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "go.dead"}
	must(channel.QueueDeclare("go.work", true, false, false, false, arguments))
	check(channel.QueueBind("go.work", "a.#", "go.topic", false, nil))
	check(channel.Confirm(false))
	confirms := channel.NotifyPublish(make(chan amqp.Confirmation, count+1))
	returns := channel.NotifyReturn(make(chan amqp.Return, 1))
	for number := 0; number < count; number++ {
		check(channel.PublishWithContext(context.Background(), "go.topic", "a.b", true, false, amqp.Publishing{
			DeliveryMode: amqp.Persistent,
			Headers:      amqp.Table{"n": int32(number)},
			MessageId:    fmt.Sprint(number),
			Body:         []byte(fmt.Sprint("body ", number)),
		}))
	}
	for number := 0; number < count; number++ {
		if confirm := <-confirms; !confirm.Ack || confirm.DeliveryTag != uint64(number+1) {
			log.Fatal("not confirmed: ", confirm)
		}
	}
	fmt.Println("confirmed", count)
	check(channel.PublishWithContext(context.Background(), "go.topic", "nowhere", true, false, amqp.Publishing{Body: []byte("x")}))
	<-confirms
	returned := <-returns
	fmt.Println("returned", returned.ReplyCode, returned.ReplyText)
	work(connection)
	dead(connection)
	rpc(connection)
	transaction(connection)
	failure(connection)
	fmt.Println("deleted", must(channel.QueueDelete("go.work", false, false, false)))
	check(connection.Close())
	fmt.Println("closed")
}

func work(connection *amqp.Connection) {
	channel := must(connection.Channel())
	check(channel.Qos(50, 0, false))
	deliveries := must(channel.Consume("go.work", "worker", false, false, false, false, nil))
	inOrder, redelivered := true, 0
	for number := 0; number < count; number++ {
		delivery := <-deliveries
		inOrder = inOrder && delivery.Headers["n"] == int32(number) && string(delivery.Body) == fmt.Sprint("body ", number)
		if delivery.Redelivered {
			redelivered++
		}
		if number%2 == 0 {
			check(delivery.Ack(false))
		} else {
			check(delivery.Reject(false))
		}
	}
	check(channel.Cancel("worker", false))
	fmt.Println("in order", inOrder, "redelivered", redelivered)
	_, found, err := channel.Get("go.work", false)
	check(err)
	fmt.Println("empty", !found)
	check(channel.Close())
}

func dead(connection *amqp.Connection) {
	channel := must(connection.Channel())
	number := 0
	var last amqp.Delivery
	for {
		delivery, found, err := channel.Get("go.dead", false)
		check(err)
		if !found {
			break
		}
		death := delivery.Headers["x-death"].([]any)[0].(amqp.Table)
		if number == 0 {
			fmt.Println("death", death["reason"], death["queue"], death["exchange"], death["routing-keys"], death["count"])
		}
		number++
		last = delivery
	}
	check(last.Ack(true))
	fmt.Println("dead", number)
	check(channel.Close())
}

func rpc(connection *amqp.Connection) {
	client, server := must(connection.Channel()), must(connection.Channel())
	must(server.QueueDeclare("go.rpc", false, false, true, false, nil))
	questions := must(server.Consume("go.rpc", "", false, false, false, false, nil))
	go func() {
		for question := range questions {
			body := []byte(strings.ToUpper(string(question.Body)))
			check(server.PublishWithContext(context.Background(), "", question.ReplyTo, false, false, amqp.Publishing{Body: body}))
			check(question.Ack(false))
		}
	}()
	answers := must(client.Consume("amq.rabbitmq.reply-to", "", true, false, false, false, nil))
	question := amqp.Publishing{ReplyTo: "amq.rabbitmq.reply-to", Body: []byte("question")}
	check(client.PublishWithContext(context.Background(), "", "go.rpc", false, false, question))
	fmt.Println("answer", string((<-answers).Body))
	check(client.Close())
}

func transaction(connection *amqp.Connection) {
	channel := must(connection.Channel())
	check(channel.Tx())
	for _, end := range []struct {
		name string
		run  func() error
	}{{"tx_rollback", channel.TxRollback}, {"tx_commit", channel.TxCommit}} {
		for number := 0; number < 3; number++ {
			publishing := amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte("x")}
			check(channel.PublishWithContext(context.Background(), "", "go.work", false, false, publishing))
		}
		check(end.run())
		queue := must(channel.QueueDeclarePassive("go.work", true, false, false, false, nil))
		fmt.Println("after", end.name, queue.Messages)
	}
	check(channel.Close())
}

func failure(connection *amqp.Connection) {
	channel := must(connection.Channel())
	_, err := channel.QueueDeclarePassive("go.none", true, false, false, false, nil)
	var refused *amqp.Error
	if errors.As(err, &refused) {
		fmt.Println("refused", refused.Code, refused.Reason)
	}
}
