// Recorder is a plugin that writes every event to a file, in the order of arrival.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"sync"
	"time"

	"berth.local/tests/nri/plugin"
	"github.com/containerd/nri/pkg/api"
)

type recorder struct {
	plugin.Base
	lock sync.Mutex
}

type event struct {
	Event      string                   `json:"event"`
	Pod        *api.PodSandbox          `json:"pod,omitempty"`
	Container  *api.Container           `json:"container,omitempty"`
	Pods       []*api.PodSandbox        `json:"pods,omitempty"`
	Containers []*api.Container         `json:"containers,omitempty"`
	Config     string                   `json:"config,omitempty"`
	Runtime    string                   `json:"runtime,omitempty"`
	Adjust     *api.ContainerAdjustment `json:"adjust,omitempty"`
	Resources  *api.LinuxResources      `json:"resources,omitempty"`
}

// record appends the event to the file, then waits or refuses as configured.
func (r *recorder) record(e event) error {
	r.lock.Lock()
	if path := r.Config.Record; path != "" {
		file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			plugin.Fail(err)
		}
		line, _ := json.Marshal(e)
		if _, err := file.Write(append(line, '\n')); err != nil {
			plugin.Fail(err)
		}
		file.Close()
	}
	r.lock.Unlock()
	if path, held := r.Config.Hold[e.Event]; held {
		for !exists(path) {
			time.Sleep(5 * time.Millisecond)
		}
	}
	words, refused := r.Config.Refuse[e.Event]
	if refused && (r.Config.Refusing == "" || exists(r.Config.Refusing)) {
		return errors.New(words)
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (r *recorder) Configure(_ context.Context, config, runtime, version string) (api.EventMask, error) {
	if config != "" {
		r.Read(config)
	}
	return 0, r.record(event{Event: "Configure", Config: config, Runtime: runtime + " " + version})
}

func (r *recorder) Synchronize(_ context.Context, pods []*api.PodSandbox, containers []*api.Container) ([]*api.ContainerUpdate, error) {
	return nil, r.record(event{Event: "Synchronize", Pods: pods, Containers: containers})
}

func (r *recorder) Shutdown(context.Context) {
	_ = r.record(event{Event: "Shutdown"})
}

func (r *recorder) RunPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return r.record(event{Event: "RunPodSandbox", Pod: pod})
}

func (r *recorder) UpdatePodSandbox(_ context.Context, pod *api.PodSandbox, _, resources *api.LinuxResources) error {
	return r.record(event{Event: "UpdatePodSandbox", Pod: pod, Resources: resources})
}

func (r *recorder) PostUpdatePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return r.record(event{Event: "PostUpdatePodSandbox", Pod: pod})
}

func (r *recorder) StopPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return r.record(event{Event: "StopPodSandbox", Pod: pod})
}

func (r *recorder) RemovePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return r.record(event{Event: "RemovePodSandbox", Pod: pod})
}

func (r *recorder) CreateContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	return nil, nil, r.record(event{Event: "CreateContainer", Pod: pod, Container: container})
}

func (r *recorder) PostCreateContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	return r.record(event{Event: "PostCreateContainer", Pod: pod, Container: container})
}

func (r *recorder) StartContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	return r.record(event{Event: "StartContainer", Pod: pod, Container: container})
}

func (r *recorder) PostStartContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	return r.record(event{Event: "PostStartContainer", Pod: pod, Container: container})
}

func (r *recorder) UpdateContainer(_ context.Context, pod *api.PodSandbox, container *api.Container, resources *api.LinuxResources) ([]*api.ContainerUpdate, error) {
	return nil, r.record(event{Event: "UpdateContainer", Pod: pod, Container: container, Resources: resources})
}

func (r *recorder) PostUpdateContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	return r.record(event{Event: "PostUpdateContainer", Pod: pod, Container: container})
}

func (r *recorder) StopContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) ([]*api.ContainerUpdate, error) {
	return nil, r.record(event{Event: "StopContainer", Pod: pod, Container: container})
}

func (r *recorder) RemoveContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	return r.record(event{Event: "RemoveContainer", Pod: pod, Container: container})
}

func main() {
	r := &recorder{}
	r.Flags()
	r.Run(r)
}
