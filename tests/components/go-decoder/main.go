// Command go-decoder counts what protects the objects of a Kubernetes cluster, current and history,
// independently of Claviger: it takes envelopes apart with kube-apiserver's own message type, and
// finds history by another way.
//
//	history = (values at the last compaction) + (puts since) - (values now)
//
// It prints one JSON object: "KIND PROTECTION" to [current, history], where KIND is the part of the
// etcd key that names the resource.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"

	"google.golang.org/protobuf/proto"
	kmstypes "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2/v2"
)

const prefix = "/registry/"

func main() {
	etcd := flag.String("etcd", "", "`URL` of etcd's HTTP gateway")
	flag.Parse()
	if err := run(*etcd); err != nil {
		fmt.Fprintln(os.Stderr, "go-decoder:", err)
		os.Exit(1)
	}
}

func run(etcd string) error {
	client := gateway(etcd)
	now, err := client.read(0)
	if err != nil {
		return err
	}
	counts := map[string]*[2]int{}
	add := func(kv keyValue, current, history int) {
		label, ok := label(kv)
		if !ok {
			return
		}
		if counts[label] == nil {
			counts[label] = new([2]int)
		}
		counts[label][0] += current
		counts[label][1] += history
	}
	for _, kv := range now.Kvs {
		add(kv, 1, -1)
	}
	compacted, puts, err := client.puts(now.Header.Revision)
	if err != nil {
		return err
	}
	for _, kv := range puts {
		add(kv, 0, 1)
	}
	if compacted > 0 {
		then, err := client.read(compacted)
		if err != nil {
			return err
		}
		for _, kv := range then.Kvs {
			add(kv, 0, 1)
		}
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"revision": now.Header.Revision, "counts": counts,
	})
}

// label says what kind of object lies under a key, and what protects it.
func label(kv keyValue) (string, bool) {
	path, ok := strings.CutPrefix(string(kv.Key), prefix)
	if !ok {
		return "", false
	}
	parts := strings.Split(path, "/")
	kind := parts[0]
	if len(parts) > 2 && (kind == "services" || strings.Contains(kind, ".")) {
		kind += "/" + parts[1]
	}
	return kind + " " + protection(kv.Value), true
}

func protection(value []byte) string {
	rest, ok := bytes.CutPrefix(value, []byte("k8s:enc:"))
	if !ok {
		return "plaintext"
	}
	if envelope, ok := bytes.CutPrefix(rest, []byte("kms:v2:")); ok {
		provider, message, _ := bytes.Cut(envelope, []byte(":"))
		object := &kmstypes.EncryptedObject{}
		if err := proto.Unmarshal(message, object); err != nil || object.KeyID == "" {
			return "malformed"
		}
		return string(provider) + "/" + object.KeyID
	}
	parts := bytes.SplitN(rest, []byte(":"), 4)
	if len(parts) < 4 {
		return "malformed"
	}
	return string(parts[0]) + ":" + string(parts[2])
}

// gateway is etcd's JSON gateway.
type gateway string

type keyValue struct {
	Key         []byte `json:"key"`
	Value       []byte `json:"value"`
	ModRevision int64  `json:"mod_revision,string"`
}

type rangeResponse struct {
	Header struct {
		Revision int64 `json:"revision,string"`
	} `json:"header"`
	Kvs []keyValue `json:"kvs"`
}

type watchResponse struct {
	Result struct {
		CompactRevision int64 `json:"compact_revision,string"`
		Canceled        bool  `json:"canceled"`
		Events          []struct {
			Type string   `json:"type"`
			Kv   keyValue `json:"kv"`
		} `json:"events"`
	} `json:"result"`
}

// read returns every key as it was at a revision; 0 is now.
func (g gateway) read(revision int64) (*rangeResponse, error) {
	answer, err := g.post("/v3/kv/range", map[string]any{
		"key": "AA==", "range_end": "AA==", "revision": fmt.Sprint(revision),
	})
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("range at %d: %s", revision, answer.Status)
	}
	response := &rangeResponse{}
	return response, json.NewDecoder(answer.Body).Decode(response)
}

// puts returns the last compaction, or 0, and every put after it up to a revision.
func (g gateway) puts(last int64) (compacted int64, puts []keyValue, err error) {
	for {
		again, found, err := g.watch(compacted+1, last)
		if err != nil || again == 0 {
			return compacted, found, err
		}
		compacted = again
		if compacted >= last {
			return compacted, nil, nil
		}
	}
}

func (g gateway) watch(from, last int64) (compacted int64, puts []keyValue, err error) {
	answer, err := g.post("/v3/watch", map[string]any{"create_request": map[string]any{
		"key": "AA==", "range_end": "AA==", "start_revision": fmt.Sprint(from),
	}})
	if err != nil {
		return 0, nil, err
	}
	defer answer.Body.Close()
	decoder := json.NewDecoder(answer.Body)
	for {
		var response watchResponse
		if err := decoder.Decode(&response); err != nil {
			return 0, nil, err
		}
		if response.Result.CompactRevision > 0 {
			return response.Result.CompactRevision, nil, nil
		}
		if response.Result.Canceled {
			return 0, nil, errors.New("etcd ended the watch")
		}
		done := false
		for _, event := range response.Result.Events {
			if event.Kv.ModRevision > last {
				return 0, puts, nil
			}
			done = event.Kv.ModRevision == last
			if event.Type != "DELETE" {
				puts = append(puts, event.Kv)
			}
		}
		if done {
			return 0, puts, nil
		}
	}
}

func (g gateway) post(path string, request any) (*http.Response, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	return http.Post(string(g)+path, "application/json", bytes.NewReader(body))
}
