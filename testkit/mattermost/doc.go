// Package mattermost is a fake of a Mattermost server at the wire
// (https://api.mattermost.com/): the parts of REST API version 4 and of the
// websocket that a bot uses, on 127.0.0.1, with the refusals that a real one
// gives, and able to misbehave on request.
//
// A test makes people and channels, lets them write, and looks at what they see:
//
//	srv, err := mattermost.New(mattermost.Options{})
//	defer srv.Close()
//	alice := srv.AddUser("alice")
//	srv.Say(alice, "hello")                       // an event for the bot
//	m, err := srv.Next(ctx, srv.Direct(alice))    // the bot's next post to her
//
// The bot is pointed at srv.URL() and srv.Token(). Nothing here needs the
// testing package, so the same server serves demonstrations.
//
// What is faithful: bearer tokens; the websocket's authentication challenge,
// hello, sequence numbers, answers to pings and "posted" events, whose post is
// JSON within JSON; the listing of posts since an instant (the newest thousand
// of those that were changed, deleted ones included), before and after a post
// and by pages; pending_post_id, which is remembered for half a minute;
// threads; patches; files in both forms of upload; reactions; limits of length
// and size; the ids, texts and status codes of the errors.
//
// What differs: create_at is unique within the server, so that what a test
// wrote has one order.
package mattermost
