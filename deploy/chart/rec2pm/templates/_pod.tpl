{{/*
The pod of a part: a worker, the view, the trainer, a job.

root        the chart's own context
name        of the part
part        its values: settings, secretSettings, secretFiles, resources and where it may run
args        of rec2pm, a list
models      "ro" or "rw" where the part needs the registry, or ""
account     whether it has the release's service account; a job that runs before the installation has none yet
env         variables of its own, a list
ports, probes, mounts, volumes     as in Kubernetes; probes is a map with the names of the container's fields
*/}}
{{- define "rec2pm.pod" -}}
{{- $values := .root.Values -}}
{{- $part := .part -}}
{{- $files := concat $values.secretFiles ($part.secretFiles | default list) -}}
{{- if .account }}
serviceAccountName: {{ include "rec2pm.serviceAccount" .root }}
{{- end }}
# Nothing here asks Kubernetes, and a Service called rec2pm would bring variables that look like settings.
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with $part.terminationGracePeriodSeconds }}
terminationGracePeriodSeconds: {{ . }}
{{- end }}
{{- with $part.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $part.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: {{ .name }}
    image: {{ printf "%s:%s" $values.image.repository (default .root.Chart.AppVersion $values.image.tag) | quote }}
    imagePullPolicy: {{ $values.image.pullPolicy }}
    args:
      {{- toYaml .args | nindent 6 }}
    env:
      {{- include "rec2pm.env" . | trim | nindent 6 }}
    {{- with $values.extraEnvFrom }}
    envFrom:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with .ports }}
    ports:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with .probes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with $part.resources }}
    resources:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities:
        drop: [ALL]
    volumeMounts:
      - name: tmp
        mountPath: /tmp
      {{- if and .models $values.models.existingClaim }}
      - name: models
        mountPath: /var/lib/rec2pm/models
        readOnly: {{ eq .models "ro" }}
      {{- end }}
      {{- range $at, $file := $files }}
      - name: secret-{{ $at }}
        mountPath: {{ $file.mountPath }}
        readOnly: true
      {{- end }}
      {{- with .mounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
volumes:
  - name: tmp
    emptyDir: {}
  {{- if and .models $values.models.existingClaim }}
  - name: models
    persistentVolumeClaim:
      claimName: {{ $values.models.existingClaim }}
      readOnly: {{ eq .models "ro" }}
  {{- end }}
  {{- range $at, $file := $files }}
  - name: secret-{{ $at }}
    secret:
      secretName: {{ $file.secretName }}
  {{- end }}
  {{- with .volumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* The variables of a part. What is said of the part comes before what is said of all. */}}
{{- define "rec2pm.env" -}}
{{- $values := .root.Values -}}
{{- $settings := merge (dict) (.part.settings | default dict) $values.settings -}}
{{- $secret := merge (dict) (.part.secretSettings | default dict) $values.secretSettings -}}
{{- range $name := list "REC2PM_WORKER" "REC2PM_STATE_DIR" "REC2PM_MODELS" "REC2PM_METRICS_LISTEN" }}
{{- if or (hasKey $settings $name) (hasKey $secret $name) }}
{{- fail (printf "settings: %s is set by the chart; the registry is models.url or models.existingClaim, other folders and ports are fixed" $name) }}
{{- end }}
{{- end }}
{{- if not (or (index $settings "REC2PM_BOOTSTRAP_SERVERS") (hasKey $secret "REC2PM_BOOTSTRAP_SERVERS")) }}
{{- fail "settings.REC2PM_BOOTSTRAP_SERVERS is missing: the addresses of Kafka, HOST:PORT" }}
{{- end }}
{{- range $name, $value := $settings }}
{{- if not (hasKey $secret $name) }}
- name: {{ $name }}
  value: {{ kindIs "string" $value | ternary $value (toJson $value) | quote }}
{{- end }}
{{- end }}
{{- range $name, $reference := $secret }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef:
      name: {{ $reference.name }}
      key: {{ $reference.key }}
{{- end }}
{{- if .models }}
{{- if eq (empty $values.models.url) (empty $values.models.existingClaim) }}
{{- fail "models: expected one of models.url (a bucket) and models.existingClaim (a volume)" }}
{{- end }}
- name: REC2PM_MODELS
  value: {{ default "/var/lib/rec2pm/models" $values.models.url | quote }}
{{- end }}
{{- with .env }}
{{ toYaml . }}
{{- end }}
{{- with $values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* A setting as it is for all parts, or its default: root, name, default. */}}
{{- define "rec2pm.setting" -}}
{{- default .default (index .root.Values.settings .name) -}}
{{- end -}}
