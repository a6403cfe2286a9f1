package mattermost

import (
	"bytes"
	"encoding/json"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

func (s *Server) routes() {
	s.mux = http.NewServeMux()
	s.mux.HandleFunc("GET /api/v4/websocket", s.websocket)
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusNotFound, nil, refuse(http.StatusNotFound, "api.context.404.app_error", "Sorry, we could not find the page."))
	})
	s.route("GET /users/me", http.StatusOK, func(*http.Request, []byte) (any, *apiError) { return s.self, nil })
	s.route("GET /users/{id}", http.StatusOK, s.getUser)
	s.route("GET /users/{id}/channels", http.StatusOK, s.getChannels)
	s.route("GET /users/{id}/teams", http.StatusOK, s.getTeams)
	s.route("POST /users/{id}/typing", http.StatusOK, s.publishTyping)
	s.route("GET /config/client", http.StatusOK, s.getConfig)
	s.route("GET /channels/{id}", http.StatusOK, s.getChannel)
	s.route("GET /posts/{id}", http.StatusOK, s.getPost)
	s.route("GET /channels/{id}/posts", http.StatusOK, s.getPosts)
	s.route("GET /posts/{id}/thread", http.StatusOK, s.getThread)
	s.route("POST /posts", http.StatusCreated, s.createPost)
	s.route("PUT /posts/{id}/patch", http.StatusOK, s.patchPost)
	s.route("POST /reactions", http.StatusCreated, s.saveReaction)
	s.route("POST /files", http.StatusCreated, s.uploadFile)
	s.route("GET /files/{id}", http.StatusOK, s.getFile)
}

func (s *Server) getUser(r *http.Request, _ []byte) (any, *apiError) {
	if u := s.users[r.PathValue("id")]; u != nil {
		return u, nil
	}
	return nil, refuse(http.StatusNotFound, "app.user.missing_account.const", "Unable to find the user.")
}

// getChannels is https://api.mattermost.com/#tag/channels/operation/GetChannelsForUser.
func (s *Server) getChannels(*http.Request, []byte) (any, *apiError) {
	out := []Channel{}
	for _, id := range s.order {
		if c := s.channels[id]; c.DeleteAt == 0 {
			out = append(out, c.Channel)
		}
	}
	return out, nil
}

// teamID and the name of the one team, https://api.mattermost.com/#tag/teams/operation/GetTeamsForUser.
const (
	teamID   = "teamteamteamteamteamteam01"
	teamName = "acme"
)

func (s *Server) getTeams(*http.Request, []byte) (any, *apiError) {
	return []map[string]any{{"id": teamID, "name": teamName, "display_name": "Acme", "delete_at": 0}}, nil
}

func (s *Server) getChannel(r *http.Request, _ []byte) (any, *apiError) {
	c, e := s.channel(r.PathValue("id"))
	if e != nil {
		return nil, e
	}
	return c.Channel, nil
}

func (s *Server) getPost(r *http.Request, _ []byte) (any, *apiError) {
	p := s.posts[r.PathValue("id")]
	if p == nil || p.DeleteAt != 0 {
		return nil, errAbsent("post")
	}
	if _, e := s.channel(p.ChannelID); e != nil {
		return nil, e
	}
	out := *p
	return &out, nil
}

func (s *Server) getConfig(r *http.Request, _ []byte) (any, *apiError) {
	if r.URL.Query().Get("format") != "old" {
		return nil, refuse(http.StatusBadRequest, "api.config.client.old_format.app_error", "New format for the client configuration is not supported yet. Please specify format=old in the query string.")
	}
	return map[string]string{"MaxPostSize": strconv.Itoa(s.o.MaxPostSize), "MaxFileSize": strconv.FormatInt(s.o.MaxFileSize, 10), "Version": "10.5.0"}, nil
}

func (s *Server) publishTyping(r *http.Request, body []byte) (any, *apiError) {
	var in struct {
		ChannelID string `json:"channel_id"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, invalidBody("typing")
	}
	c, e := s.channel(in.ChannelID)
	if e != nil {
		return nil, e
	}
	c.typing++
	s.Touch()
	return map[string]string{"status": "OK"}, nil
}

func invalidBody(what string) *apiError {
	return refuse(http.StatusBadRequest, "api.context.invalid_body_param.app_error", "Invalid or missing "+what+" in request body.")
}

// channel finds a channel that the bot is in.
func (s *Server) channel(id string) (*channelState, *apiError) {
	c := s.channels[id]
	if c == nil || c.forbidden {
		return nil, errPermission() // a real server does not tell the two apart
	}
	return c, nil
}

// postList is how posts are listed, newest first.
type postList struct {
	Order []string         `json:"order"`
	Posts map[string]*post `json:"posts"`
}

func list(posts []*post) postList {
	l := postList{Order: []string{}, Posts: map[string]*post{}}
	for _, p := range posts {
		c := *p
		l.Order = append(l.Order, p.ID)
		l.Posts[p.ID] = &c
	}
	return l
}

// sinceLimit is how many posts one listing "since" holds at most.
const sinceLimit = 1000

// getPosts is https://api.mattermost.com/#tag/posts/operation/GetPostsForChannel.
func (s *Server) getPosts(r *http.Request, _ []byte) (any, *apiError) {
	c, e := s.channel(r.PathValue("id"))
	if e != nil {
		return nil, e
	}
	q := r.URL.Query()
	perPage, page := number(q.Get("per_page"), 60), number(q.Get("page"), 0)
	perPage = min(perPage, 200)
	newest := make([]*post, 0, len(c.shown))
	for _, id := range slices.Backward(c.shown) {
		newest = append(newest, s.posts[id])
	}
	switch {
	case q.Has("since"):
		since, err := strconv.ParseInt(q.Get("since"), 10, 64)
		if err != nil || since < 0 {
			return nil, refuse(http.StatusBadRequest, "api.context.invalid_url_param.app_error", "Invalid or missing since parameter in request URL.")
		}
		newest = slices.DeleteFunc(newest, func(p *post) bool { return p.UpdateAt <= since })
		return list(newest[:min(len(newest), sinceLimit)]), nil
	case q.Has("before"), q.Has("after"):
		at := s.posts[q.Get("before")+q.Get("after")]
		newest = slices.DeleteFunc(newest, func(p *post) bool {
			return p.DeleteAt != 0 || at == nil || q.Has("before") && p.CreateAt >= at.CreateAt || q.Has("after") && p.CreateAt <= at.CreateAt
		})
		if q.Has("after") { // the page nearest to the post, still listed newest first
			end := max(len(newest)-page*perPage, 0)
			return list(newest[max(end-perPage, 0):end]), nil
		}
	default:
		newest = slices.DeleteFunc(newest, func(p *post) bool { return p.DeleteAt != 0 })
	}
	begin := min(page*perPage, len(newest))
	return list(newest[begin:min(begin+perPage, len(newest))]), nil
}

func number(s string, other int) int {
	if n, err := strconv.Atoi(s); err == nil && n >= 0 {
		return n
	}
	return other
}

func (s *Server) getThread(r *http.Request, _ []byte) (any, *apiError) {
	root := s.posts[r.PathValue("id")]
	if root == nil || root.DeleteAt != 0 {
		return nil, errAbsent("post")
	}
	if _, e := s.channel(root.ChannelID); e != nil {
		return nil, e
	}
	var found []*post
	for _, id := range slices.Backward(s.channels[root.ChannelID].shown) {
		if p := s.posts[id]; (p == root || p.RootID == root.ID) && p.DeleteAt == 0 {
			found = append(found, p)
		}
	}
	return list(found), nil
}

// createPost is https://api.mattermost.com/#tag/posts/operation/CreatePost.
func (s *Server) createPost(_ *http.Request, body []byte) (any, *apiError) {
	var in post
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, invalidBody("post")
	}
	c, e := s.channel(in.ChannelID)
	if e != nil {
		return nil, e
	}
	if seen, ok := s.pending[in.PendingPostID]; ok && in.PendingPostID != "" && s.o.Now().Sub(seen.at) < pendingFor {
		again := *s.posts[seen.post]
		return &again, nil
	}
	root := s.posts[in.RootID]
	switch {
	case c.DeleteAt != 0:
		return nil, refuse(http.StatusBadRequest, "api.post.create_post.can_not_post_to_deleted.error", "Can not post to deleted channel.")
	case in.RootID != "" && (root == nil || root.DeleteAt != 0 || root.RootID != "" || root.ChannelID != in.ChannelID):
		return nil, refuse(http.StatusBadRequest, "api.post.create_post.root_id.app_error", "Invalid RootId parameter.")
	case utf8.RuneCountInString(in.Message) > s.o.MaxPostSize:
		return nil, refuse(http.StatusBadRequest, "model.post.is_valid.message_length.app_error", "Post Message property is longer than the maximum permitted length.")
	case strings.TrimSpace(in.Message) == "" && len(in.FileIDs) == 0:
		return nil, invalidBody("post")
	case len(in.FileIDs) > 10:
		return nil, refuse(http.StatusBadRequest, "model.post.is_valid.file_ids.app_error", "Invalid file ids.")
	}
	for _, id := range in.FileIDs {
		if s.files[id] == nil {
			return nil, errAbsent("file_info")
		}
	}
	n := &post{UserID: s.self.ID, ChannelID: in.ChannelID, RootID: in.RootID, Message: in.Message, Props: in.Props, FileIDs: in.FileIDs}
	if n.Props == nil {
		n.Props = map[string]any{}
	}
	n.Props["from_bot"] = "true"
	s.keepActions(n)
	s.show(n)
	if in.PendingPostID != "" {
		s.pending[in.PendingPostID] = pending{post: n.ID, at: s.o.Now()}
	}
	out := *n
	out.PendingPostID = in.PendingPostID
	return &out, nil
}

// patchPost is https://api.mattermost.com/#tag/posts/operation/PatchPost.
func (s *Server) patchPost(r *http.Request, body []byte) (any, *apiError) {
	var in struct {
		Message *string `json:"message"`
	}
	if err := json.Unmarshal(body, &in); err != nil || in.Message == nil {
		return nil, invalidBody("post")
	}
	p := s.posts[r.PathValue("id")]
	switch {
	case p == nil || p.DeleteAt != 0:
		return nil, errAbsent("post")
	case p.UserID != s.self.ID:
		return nil, errPermission()
	case utf8.RuneCountInString(*in.Message) > s.o.MaxPostSize:
		return nil, refuse(http.StatusBadRequest, "model.post.is_valid.message_length.app_error", "Post Message property is longer than the maximum permitted length.")
	}
	s.edit(p, *in.Message)
	out := *p
	return &out, nil
}

func (s *Server) saveReaction(_ *http.Request, body []byte) (any, *apiError) {
	var in struct {
		UserID string `json:"user_id"`
		PostID string `json:"post_id"`
		Emoji  string `json:"emoji_name"`
	}
	if err := json.Unmarshal(body, &in); err != nil || in.UserID != s.self.ID || in.Emoji == "" {
		return nil, invalidBody("reaction")
	}
	p := s.posts[in.PostID]
	if p == nil {
		return nil, errAbsent("post")
	}
	p.reactions = append(p.reactions, in.Emoji)
	s.reacted(p, in.UserID, in.Emoji)
	return in, nil
}

// uploadFile is https://api.mattermost.com/#tag/files/operation/UploadFile, in
// both of its forms.
func (s *Server) uploadFile(r *http.Request, body []byte) (any, *apiError) {
	q := r.URL.Query()
	channel, name, data := q.Get("channel_id"), q.Get("filename"), body
	if kind, params, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind == "multipart/form-data" {
		form, err := multipart.NewReader(bytes.NewReader(body), params["boundary"]).ReadForm(int64(len(body)) + 1)
		if err != nil || len(form.File["files"]) != 1 {
			return nil, invalidBody("files")
		}
		f, err := form.File["files"][0].Open()
		if err != nil {
			return nil, invalidBody("files")
		}
		defer f.Close()
		if data, err = io.ReadAll(f); err != nil {
			return nil, invalidBody("files")
		}
		name = form.File["files"][0].Filename
		if v := form.Value["channel_id"]; len(v) == 1 {
			channel = v[0]
		}
	}
	if _, e := s.channel(channel); e != nil {
		return nil, e
	}
	if int64(len(data)) > s.o.MaxFileSize {
		return nil, refuse(http.StatusRequestEntityTooLarge, "api.file.upload_file.too_large_detailed.app_error", "Unable to upload file. File is too large.")
	}
	if name == "" {
		return nil, refuse(http.StatusBadRequest, "api.context.invalid_url_param.app_error", "Invalid or missing filename parameter in request URL.")
	}
	return map[string]any{"file_infos": []fileInfo{s.store(name, "", data)}, "client_ids": []string{}}, nil
}

// store keeps a file; the caller holds s.mu.
func (s *Server) store(name, kind string, data []byte) fileInfo {
	if kind == "" {
		kind = mime.TypeByExtension(path.Ext(name))
	}
	if kind == "" {
		kind = "application/octet-stream"
	}
	info := fileInfo{ID: s.newID("f"), Name: name, Extension: strings.TrimPrefix(path.Ext(name), "."), Size: int64(len(data)), MIMEType: kind}
	s.files[info.ID] = &stored{info: info, data: bytes.Clone(data)}
	return info
}

func (s *Server) getFile(r *http.Request, _ []byte) (any, *apiError) {
	if f := s.files[r.PathValue("id")]; f != nil {
		return f, nil
	}
	return nil, errAbsent("file_info")
}
