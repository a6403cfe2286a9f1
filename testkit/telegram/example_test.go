package telegram_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"hermes/testkit/telegram"
)

// A conversation, from the outside: a person writes, the bot polls, answers
// and corrects itself, and the transcript is what the person sees.
func Example() {
	srv, err := telegram.New(telegram.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer srv.Close()
	alice := srv.AddUser("Alice")
	srv.Say(alice, "How warm is it?")

	bot := srv.URL() + "/bot" + srv.Token()
	chat := fmt.Sprint(alice.ID)
	for _, call := range []struct {
		method string
		form   url.Values
	}{
		{"/getUpdates", url.Values{"timeout": {"5"}}},
		{"/sendMessage", url.Values{"chat_id": {chat}, "text": {"A moment"}}},
		{"/editMessageText", url.Values{"chat_id": {chat}, "message_id": {"2"}, "text": {"<b>21 °C</b>"}, "parse_mode": {"HTML"}}},
	} {
		resp, err := http.PostForm(bot+call.method, call.form)
		if err != nil {
			fmt.Println(err)
			return
		}
		resp.Body.Close()
	}

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	m, err := srv.Next(ctx, alice.ID)
	fmt.Println(m.Text, m.Edits, err)
	fmt.Print(srv.Transcript(alice.ID))
	// Output:
	// 21 °C [A moment] <nil>
	// Alice: How warm is it?
	// Hermes: 21 °C (edited 1×)
}
