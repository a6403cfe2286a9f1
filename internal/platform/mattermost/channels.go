package mattermost

import (
	"context"
	"net/http"

	"hermes/internal/platform"
)

// Channels lists the channels and groups that the bot is in,
// https://api.mattermost.com/#tag/channels/operation/GetChannelsForUser, each
// with the name of its address and the one that people see.
func (a *Adapter) Channels(ctx context.Context) ([]platform.Channel, error) {
	var teams []struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	}
	if _, e := a.call(ctx, http.MethodGet, "/users/me/teams", nil, &teams); e != nil {
		e.Uncertain = false
		return nil, e
	}
	names := map[string]string{}
	for _, t := range teams {
		names[t.ID] = t.Name
	}
	var list []channel
	if _, e := a.call(ctx, http.MethodGet, "/users/me/channels", nil, &list); e != nil {
		e.Uncertain = false
		return nil, e
	}
	out := []platform.Channel{}
	for _, ch := range list {
		if ch.DeleteAt != 0 || !isID(ch.ID) || ch.Name == "" || len(out) == platform.MaxChannels {
			continue
		}
		one := platform.Channel{ID: ch.ID, Name: ch.Name, Title: ch.DisplayName, Space: names[ch.TeamID]}
		switch ch.Type {
		case "O":
			one.Type = "channel"
		case "P":
			one.Type = "private"
		case "G": // whose name is a hash
			one.Type, one.Name, one.Title = "group", ch.DisplayName, ""
		}
		if one.Type != "" && one.Name != "" {
			out = append(out, one)
		}
	}
	return out, nil
}

// changesChannels tells whether an event of the socket means that the list of
// channels is no longer what it was,
// https://developers.mattermost.com/api-documentation/#/#websocket-events.
func changesChannels(event string) bool {
	switch event {
	case "channel_created", "channel_updated", "channel_deleted", "channel_restored", "channel_converted", "user_added", "user_removed",
		"added_to_team", "leave_team", "update_team", "delete_team", "group_added":
		return true
	}
	return false
}
