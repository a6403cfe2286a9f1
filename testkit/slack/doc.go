// Package slack is a fake of Slack at the wire: the parts of the Web API
// (https://docs.slack.dev/reference/methods) and of Socket Mode
// (https://docs.slack.dev/apis/events-api/using-socket-mode) that an app uses,
// on 127.0.0.1, with the refusals that the real one gives, and able to
// misbehave on request.
//
// A test makes people and channels, lets them write, and looks at what they see:
//
//	srv, err := slack.New(slack.Options{})
//	defer srv.Close()
//	ann := srv.AddUser("ann")
//	srv.Say(ann, srv.Direct(ann), "hello")        // an event for the app
//	m, err := srv.Next(ctx, srv.Direct(ann))      // the app's next message to her
//
// The app is pointed at srv.URL() with srv.Token() and srv.AppToken(). Nothing
// here needs the testing package, so the same server serves demonstrations.
// slack-go's own slacktest speaks the older RTM and answers most methods with
// constants; this one is held to slack-go's clients instead.
//
// What is faithful: both kinds of tokens and which methods take which;
// apps.connections.open with an address that serves once; hello, envelopes,
// acknowledgements, and that an event which is not acknowledged comes again up
// to three times with retry_attempt, to any connection; that what is said while
// none is open is in the history only; disconnects with their reasons; pings;
// that a channel's history leaves out what was said in threads; cursors; that
// the history shows an app's metadata only when asked; permissions by scope;
// message limits; uploads in three steps, and files that want the token; 429
// with Retry-After; escaping of &, < and > in what is received.
//
// What differs: an event comes again after a fraction of a second
// (Options.RedeliverAfter) and not after minutes; presses and commands reach
// the app only while a connection is open, as in Slack, and how long Slack
// shows them as pending is not modelled.
package slack
